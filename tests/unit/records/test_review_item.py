"""A review item says what a decision needs, is the same for a repeated verdict, and has a priority from 0 to 1."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from jsonschema import Draft202012Validator

from stream_guard.records.contracts import writer_schema
from stream_guard.records.review_item import (
    build_review_item,
    encode_review_item,
    parse_review_item,
    priority_score,
    review_item_id,
    smaller_review_item,
)
from tests.verdicts import make_verdict

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
SCHEMA = Draft202012Validator(writer_schema("review-item-1.0.json"))


def make_item(confidence: float | None = None, **changes: Any) -> dict[str, Any]:  # noqa: ANN401
    verdict = make_verdict(decision="violates", severity="high")
    verdict["confidence"]["value"] = confidence
    given: dict[str, Any] = {"sample_share": 0.5, "reviews": 1, "reach": 9, "text": "t"} | changes
    return build_review_item(verdict, ["severe", "sample"], **given)


def test_an_item_is_what_its_contract_says() -> None:
    value, headers = encode_review_item(make_item(), TRACEPARENT)
    SCHEMA.validate(orjson.loads(value))
    named = dict(headers)
    assert named["ce_id"].decode() == make_item()["id"]
    assert named["ce_type"] == b"stream_guard.review_item.v1"


def test_a_repeated_verdict_has_the_same_item() -> None:
    first, again = make_verdict(published_ms=1_000), make_verdict(published_ms=9_000)
    ids = {
        build_review_item(v, ["sample"], sample_share=1.0, reviews=1)["id"] for v in (first, again)
    }
    assert ids == {review_item_id(first["id"])}
    assert review_item_id(make_verdict(offset=1)["id"]) not in ids


def test_the_priority_grows_with_severity_doubt_and_reach() -> None:
    assert priority_score(None, 0, None) == 0
    assert priority_score("critical", 1, 10**9) == 1
    assert priority_score("high", 0.5, 10) > priority_score("low", 0.5, 10)
    assert priority_score("low", 0.6, 10) > priority_score("low", 0.5, 10)
    assert priority_score("low", 0.5, 1_000) > priority_score("low", 0.5, 10)


@pytest.mark.parametrize(("confidence", "doubt"), [(0.5, 1), (1.0, 0), (0.0, 0), (0.75, 0.5)])
def test_doubt_is_greatest_where_the_confidence_is_one_half(
    confidence: float, doubt: float
) -> None:
    assert make_item(confidence)["priority"]["uncertainty"] == doubt


def test_a_topic_that_refuses_an_item_gets_it_without_its_text() -> None:
    value, headers = encode_review_item(make_item(text="t" * 100), TRACEPARENT)
    key, smaller, _ = smaller_review_item(b"k", value, headers)
    assert key == b"k"
    assert parse_review_item(smaller) == make_item(text=None)


@pytest.mark.parametrize(
    "value", [None, b"", b"[]", b"{", b'{"id": "x"}', orjson.dumps(make_item() | {"id": "0" * 32})]
)
def test_what_is_no_item_is_not_read_as_one(value: bytes | None) -> None:
    assert parse_review_item(value) is None
