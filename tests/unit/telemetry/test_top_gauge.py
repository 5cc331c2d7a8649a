"""The largest few of any number of labels, in bounded memory."""

from __future__ import annotations

import random

import pytest

from stream_guard.telemetry.top_gauge import HALF_LIFE_S, TopGauge
from stream_guard.testing import ManualClock


def gauge(shown: int = 3) -> tuple[TopGauge, ManualClock]:
    clock = ManualClock()
    return TopGauge("rates", "Rates.", ("lane", "tenant"), shown, clock.monotonic_s), clock


def shown(top: TopGauge) -> dict[str, float]:
    (family,) = top.collect()
    return {sample.labels["tenant"]: sample.value for sample in family.samples}


def test_a_steady_rate_is_shown_as_it_is() -> None:
    top, clock = gauge()
    for _ in range(3_600):
        top.add([(("all", "a"), 50)])
        top.add([(("all", "b"), 5)])
        clock.advance(1)
        shown(top)
    assert shown(top) == pytest.approx({"a": 50, "b": 5}, rel=0.01)


def test_what_is_past_fades_and_is_forgotten() -> None:
    top, clock = gauge()
    top.add([(("all", "a"), 1_000)])
    before = shown(top)["a"]
    clock.advance(HALF_LIFE_S)
    assert shown(top)["a"] == pytest.approx(before / 2)
    clock.advance(20 * HALF_LIFE_S)
    assert shown(top) == {}
    assert len(top) == 0


def test_the_largest_are_found_among_a_million_in_bounded_memory() -> None:
    top, _ = gauge()
    chance = random.Random(1)  # noqa: S311 - a test
    large = {"x": 60_000, "y": 50_000, "z": 40_000}
    stream = [name for name, count in large.items() for _ in range(count)]
    stream += [f"tenant-{number}" for number in range(850_000)]
    chance.shuffle(stream)
    for name in stream:
        top.add([(("all", name), 1)])
    assert len(top) <= 2 * 3 * 8
    assert list(shown(top)) == ["x", "y", "z"]


def test_none_is_shown_where_none_is_wanted() -> None:
    top, _ = gauge(0)
    top.add([(("all", "a"), 1)])
    assert shown(top) == {}
