"""Builds and reads review items: the records of the review topic, one for each verdict that people review. Pure.

An item's id depends on the verdict's id alone, so a repeated verdict repeats the same item.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import orjson

from stream_guard.core.errors import RecordError
from stream_guard.records.verdict_event import Headers, decode_verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "WHY",
    "Why",
    "build_review_item",
    "encode_review_item",
    "parse_review_item",
    "priority_score",
    "review_item_id",
    "smaller_review_item",
]

SCHEMA_VERSION: Final = "1.0"
EVENT_TYPE: Final = "stream_guard.review_item.v1"
DATA_SCHEMA: Final = "urn:stream-guard:schema:review-item:1.0"

Why: TypeAlias = Literal[
    "undetermined", "escalated", "severe", "cut", "unclear", "action", "disagreement", "sample"
]
WHY: Final[tuple[Why, ...]] = (
    "undetermined",  # nothing was decided
    "escalated",  # the policy leaves such posts to people
    "severe",  # a violation of review.severity_min or above
    "cut",  # the reasoning or the thread was cut
    "unclear",  # the answer's form was not exact
    "action",  # the recommended action is a review
    "disagreement",  # an earlier tier or rung had flagged what is now safe
    "sample",  # drawn to measure quality
)
"""Why a verdict is in review; an item has them in this order."""
_SEVERITIES: Final = {None: 0.0, "low": 0.25, "medium": 0.5, "high": 0.75, "critical": 1.0}
_REACH_DECADES: Final = 7  # ten million people and more count as one
_WEIGHTS: Final = (0.4, 0.3, 0.3)


def review_item_id(verdict_id: str) -> str:
    """Return the id of a verdict's item: 32 hex digits (128 bits of SHA-256)."""
    return hashlib.sha256(f"review\n{verdict_id}".encode()).hexdigest()[:32]


def priority_score(severity: str | None, uncertainty: float, reach: float | None) -> float:
    """Return an item's priority without its age, in [0, 1]: 0.4 severity + 0.3 uncertainty + 0.3 reach.

    Args:
        severity: of the category, or None.
        uncertainty: in [0, 1].
        reach: number of people, or None; counted by its logarithm.
    """
    spread = 0.0 if reach is None else min(1.0, math.log10(1 + reach) / _REACH_DECADES)
    parts = (_SEVERITIES[severity], uncertainty, spread)
    return round(sum(w * part for w, part in zip(_WEIGHTS, parts, strict=True)), 6)


def _uncertainty(verdict: Mapping[str, Any]) -> float:
    """Return how near the confidence is to one half, from 0 (certain) to 1; 0.5 where there is no confidence."""
    if verdict["decision"] == "undetermined":
        return 1.0
    confidence = verdict["confidence"]["value"]
    return 0.5 if confidence is None else round(1 - abs(2 * confidence - 1), 6)


def build_review_item(
    verdict: Mapping[str, Any],
    why: Sequence[Why],
    *,
    sample_share: float | None,
    reviews: int,
    reach: float | None = None,
    text: str | None = None,
) -> dict[str, Any]:
    """Return the item of a verdict, as ``review-item-1.0.json`` describes it.

    Args:
        verdict: as it is published.
        why: not empty.
        sample_share: share of its policy and decision that is sampled, where ``sample`` is in ``why``; else None.
        reviews: how many people shall review it, 1 or 2.
        reach: how many people the post reaches, or None.
        text: the post's text, where items hold it.
    """
    policy, source = verdict["policy"], verdict["source"]
    uncertainty = _uncertainty(verdict)
    return {
        "schema_version": SCHEMA_VERSION,
        "id": review_item_id(verdict["id"]),
        "verdict_id": verdict["id"],
        "why": list(why),
        "review_reasons": list(verdict["review_reasons"]),
        "priority": {
            "score": priority_score(policy["severity"], uncertainty, reach),
            "uncertainty": uncertainty,
            "reach": reach,
        },
        "sample_share": sample_share,
        "reviews": reviews,
        "created_at": verdict["timing"]["published"],
        "verdict": {
            "decision": verdict["decision"],
            "action": verdict["action"],
            "labels": list(policy["labels"]),
            "category": policy["category"],
            "severity": policy["severity"],
            "rule_ids": list(policy["rule_ids"]),
            "confidence": verdict["confidence"]["value"],
            "tier": verdict["provenance"]["tier"],
            "model": verdict["provenance"]["model"],
        },
        "source": dict(source),
        "content": {
            name: verdict["content"][name]
            for name in ("id", "sha256", "author", "tenant", "language")
        },
        "policy": {name: policy[name] for name in ("id", "version", "sha256")},
        "text": text,
    }


def encode_review_item(item: Mapping[str, Any], traceparent: str) -> tuple[bytes, Headers]:
    """Return the value and the headers of an item's record: a CloudEvent 1.0 in binary mode."""
    source = item["source"]
    return orjson.dumps(item), [
        ("content-type", b"application/json"),
        ("ce_specversion", b"1.0"),
        ("ce_type", EVENT_TYPE.encode()),
        ("ce_dataschema", DATA_SCHEMA.encode()),
        ("ce_id", item["id"].encode()),
        ("ce_source", f"/stream-guard/{source['topic']}/{source['partition']}".encode()),
        ("traceparent", traceparent.encode()),
    ]


def smaller_review_item(
    key: bytes | None, value: bytes | None, headers: Headers
) -> tuple[bytes | None, bytes | None, Headers]:
    """Return an item's record without the text, for a topic that refuses it as too large."""
    assert value is not None, "an item has a value"
    item = orjson.loads(value)
    item["text"] = None
    return key, orjson.dumps(item), headers


def parse_review_item(value: bytes | None) -> dict[str, Any] | None:
    """Return the item in a record of the review topic; None where the record is no item that can be read."""
    try:
        item = decode_verdict(value or b"")
        major = item["schema_version"].partition(".")[0]
        named = item["id"] == review_item_id(item["verdict_id"])
        places = item["source"], item["content"]["id"], item["policy"]["id"], item["priority"]
        usable = named and major == "1" and all(places) and bool(item["why"])
    except (orjson.JSONDecodeError, RecordError, KeyError, TypeError, AttributeError):
        return None
    return item if usable else None
