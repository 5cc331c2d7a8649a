"""What bounds a search of verdicts, and the setting of its links."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from stream_guard.console.sources.verdict_search import newest
from stream_guard.kafka.ranges import Span
from stream_guard.settings import ConsoleSettings


def test_partitions_share_the_bound_and_what_one_does_not_need_goes_to_others() -> None:
    spans = {("t", 0): Span(0, 100), ("t", 1): Span(5, 7), ("t", 2): Span(50, 150)}
    cut, left = newest(spans, 22)
    assert cut == {("t", 0): Span(90, 100), ("t", 1): Span(5, 7), ("t", 2): Span(140, 150)}
    assert left == 180
    assert newest(spans, 1_000) == (spans, 0)


def test_the_address_of_traces_needs_a_place_for_the_id() -> None:
    with pytest.raises(ValidationError, match="trace_id"):
        ConsoleSettings(trace_url="https://t.example/")
    with pytest.raises(ValidationError, match="not an address"):
        ConsoleSettings(trace_url="javascript:{trace_id}")
