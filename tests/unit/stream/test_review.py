"""Verdicts go into review for a reason, and their items are owed with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pytest
from prometheus_client import CollectorRegistry

from stream_guard.core.kafka_types import Partition
from stream_guard.judging.engine.scripted import ScriptedJudge
from stream_guard.policies.policy import PolicySet, make_policy
from stream_guard.records.post import Post, PostParser
from stream_guard.records.review_item import review_item_id
from stream_guard.settings import ReviewSettings, Settings
from stream_guard.stream.offsets import PartitionOffsets
from stream_guard.stream.pipeline import Pipeline
from stream_guard.stream.review import Reviews, is_drawn, sample_share
from stream_guard.stream.tracing.record_tracer import Tracing
from stream_guard.telemetry.metrics import Metrics
from stream_guard.testing import ManualClock, MemoryRecord
from tests.verdicts import FakeRecord, make_verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stream_guard.stream.in_flight import Outgoing

POST = Post(id="p0", text="t", sha256="0" * 64, text_bytes=1)
PLACE = Partition("posts", 0)


def why(settings: ReviewSettings | None = None, **changes: Any) -> list[str]:  # noqa: ANN401
    """Return why a verdict with these changes is in review; empty where it is not."""
    item = item_of(settings or ReviewSettings(), **changes)
    return [] if item is None else list(item["why"])


def item_of(settings: ReviewSettings, **changes: Any) -> dict[str, Any] | None:  # noqa: ANN401
    verdict = make_verdict(
        decision=changes.pop("decision", "safe"),
        severity=changes.pop("severity", None),
        route_mode=changes.pop("route_mode", "live"),
    )
    verdict["provenance"]["trail"] = changes.pop("trail", [])
    record = FakeRecord(value=changes.pop("value", b'{"id": "p0", "text": "t"}'))
    reviews = Reviews(settings, "review", PostParser(Settings().post))
    return reviews.item(record, verdict | changes, POST)


def step(tier: str, reason: str, outcome: str = "escalated") -> dict[str, Any]:
    return {"tier": tier, "outcome": outcome, "reason": reason, "duration_us": 0, "effort": None}


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        ({}, []),
        ({"decision": "violates", "action": "remove"}, []),
        ({"decision": "violates", "action": "remove", "severity": "high"}, ["severe"]),
        ({"decision": "violates", "action": "remove", "severity": "medium"}, []),
        ({"decision": "violates", "action": "review"}, ["action"]),
        ({"decision": "undetermined", "action": "none"}, ["undetermined"]),
        (
            {"decision": "undetermined", "action": "none", "review_reasons": ["label"]},
            ["escalated"],
        ),
        ({"review_reasons": ["category"]}, ["escalated"]),
        ({"review_reasons": ["reasoning_cut"]}, ["cut"]),
        ({"review_reasons": ["context_dropped"]}, ["cut"]),
        ({"review_reasons": ["parse_status"]}, ["unclear"]),
        ({"trail": [step("rules", "rule:bad-link")]}, ["disagreement"]),
        ({"trail": [step("safeguard", "severe")]}, ["disagreement"]),
        ({"trail": [step("safeguard", "uncertain")]}, []),
        ({"trail": [step("rules", "rule:bad-link", "settled")]}, []),
        ({"decision": "violates", "action": "remove", "trail": [step("safeguard", "severe")]}, []),
    ],
)
def test_a_verdict_is_reviewed_for_a_reason(changes: dict[str, Any], reasons: list[str]) -> None:
    assert why(**changes) == reasons


def test_a_shadow_is_never_reviewed() -> None:
    every = ReviewSettings(sample={"*": {"*": 1.0}})
    assert why(every) == ["sample"]
    assert why(every, route_mode="shadow") == []


def test_what_a_person_decided_is_not_reviewed_again() -> None:
    every = ReviewSettings(sample={"*": {"*": 1.0}})
    verdict = make_verdict(decision="violates", severity="critical")
    reviews = Reviews(every, "review", PostParser(Settings().post))
    assert reviews.item(FakeRecord(), verdict, POST) is not None
    verdict["provenance"]["tier"] = "human"
    assert reviews.item(FakeRecord(), verdict, POST) is None


def test_a_share_counts_for_the_policy_and_the_decision() -> None:
    settings = ReviewSettings(
        sample={"spam": {"safe": 0.25}, "*": {"violates": 0.5, "*": 0.125}},
    )
    assert sample_share(settings, "spam", "safe") == 0.25
    assert sample_share(settings, "spam", "violates") == 0
    assert sample_share(settings, "other", "violates") == 0.5
    assert sample_share(settings, "other", "safe") == 0.125


def test_a_sample_has_its_share_and_a_repeat_draws_the_same() -> None:
    ids = [review_item_id(f"{number:032x}") for number in range(4_000)]
    drawn = [name for name in ids if is_drawn(name, 0.25)]
    assert 850 < len(drawn) < 1_150
    assert drawn == [name for name in ids if is_drawn(name, 0.25)]
    assert not any(is_drawn(name, 0) for name in ids)
    assert all(is_drawn(name, 1) for name in ids)


def test_an_item_says_with_which_probability_it_was_drawn() -> None:
    item = item_of(ReviewSettings(sample={"*": {"*": 1.0}}, second_share=1.0))
    assert item is not None
    assert (item["sample_share"], item["reviews"]) == (1.0, 2)
    severe = item_of(ReviewSettings(second_share=0.0), decision="undetermined")
    assert severe is not None
    assert (severe["sample_share"], severe["reviews"]) == (None, 1)


@pytest.mark.parametrize(
    ("found", "reach"),
    [("12", 12), ("0", 0), ("-1", None), ('"12"', None), ("true", None), ("null", None)],
)
def test_reach_is_read_from_the_record(found: str, reach: int | None) -> None:
    value = f'{{"id": "p0", "text": "t", "author": {{"followers": {found}}}}}'.encode()
    settings = ReviewSettings(reach="/author/followers")
    item = item_of(settings, value=value, decision="undetermined")
    assert item is not None
    assert item["priority"]["reach"] == reach


def test_items_hold_the_text_only_where_a_setting_says_so() -> None:
    for text, held in ((False, None), (True, "t")):
        item = item_of(ReviewSettings(text=text), decision="undetermined")
        assert item is not None
        assert item["text"] == held


class HoldingPublisher:
    """Keeps what it is given; the test acknowledges."""

    def __init__(self) -> None:
        self.sent: list[Outgoing] = []
        self.acknowledged: Callable[[Sequence[Outgoing]], None] = lambda _: None

    def publish(
        self, outgoing: Sequence[Outgoing], acknowledged: Callable[[Sequence[Outgoing]], None]
    ) -> None:
        self.sent.extend(outgoing)
        self.acknowledged = acknowledged


@pytest.mark.parametrize("topic", ["review", None])
def test_a_record_is_finished_once_its_verdict_and_its_item_are_acknowledged(
    topic: str | None,
) -> None:
    settings = Settings(
        kafka={"review_topic": topic},  # type: ignore[arg-type]
        review={"sample": {"*": {"*": 1.0}}},  # type: ignore[arg-type]
    )
    publisher, offsets = HoldingPublisher(), PartitionOffsets(PLACE, 1)
    tracing, registry = Tracing(settings.telemetry, group="test"), CollectorRegistry()
    pipeline = Pipeline(
        settings,
        PolicySet({"spam": make_policy("spam", b"# Spam\nS1: ads\n")}, {"posts": ("spam",)}),
        parser=PostParser(settings.post),
        judge=ScriptedJudge(),
        publisher=publisher,  # type: ignore[arg-type] # the slice of it that is used
        clock=ManualClock(),
        metrics=Metrics(registry),
        tracing=tracing,
    )
    pipeline.accept(offsets, [MemoryRecord("posts", 0, 0, value=b'{"id": "1", "text": "t"}')])
    pipeline.dispatch(flush=True)
    verdict, *items = publisher.sent
    assert [item.topic for item in items] == ([] if topic is None else ["review"])
    publisher.acknowledged([verdict])
    assert offsets.position() == (1 if topic is None else 0)
    if items:
        item = orjson.loads(items[0].value or b"")
        assert item["verdict_id"] == orjson.loads(verdict.value or b"")["id"]
        assert items[0].key == verdict.key
        publisher.acknowledged(items)
        assert offsets.position() == 1
        assert registry.get_sample_value("stream_guard_review_items_total") == 1
    tracing.close()
