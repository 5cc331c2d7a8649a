"""The pipeline routes by topic or by post, keeps shadows apart, and switches policies between two batches."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from prometheus_client import CollectorRegistry

from stream_guard.core.errors import PolicyError
from stream_guard.core.kafka_types import Partition
from stream_guard.judging.contract import JudgeRequest, Provenance
from stream_guard.judging.engine.scripted import ScriptedJudge
from stream_guard.policies.policy import PolicySet, make_policy
from stream_guard.policies.routing import Canary, Condition, RouteRule, Routing, Shadow
from stream_guard.records.post import Post, PostParser
from stream_guard.service.policies import check_routes
from stream_guard.settings import Settings
from stream_guard.stream.batching import Batcher
from stream_guard.stream.offsets import PartitionOffsets
from stream_guard.stream.pipeline import Pipeline
from stream_guard.stream.tracing.record_tracer import Tracing
from stream_guard.telemetry.metrics import Metrics
from stream_guard.testing import ManualJudge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from stream_guard.judging.contract import Judge
    from stream_guard.stream.in_flight import Outgoing

PLACE = Partition("posts", 0)
TEXT = b"Answer `VIOLATES` or `SAFE`. Judge by the letter."


@dataclass
class FakeRecord:
    """A record of the topic ``posts``."""

    offset: int
    value: bytes
    headers: Sequence[tuple[str, bytes]] = ()
    topic: str = "posts"
    partition: int = 0
    timestamp: int = 0
    key: bytes | None = None


class FakeClock:
    """Time that stands still."""

    def wall_ns(self) -> int:
        return 1_000_000_000

    def monotonic_s(self) -> float:
        return 1.0


@dataclass
class FakePublisher:
    """Keeps what it is given, and acknowledges it at once."""

    sent: list[Outgoing] = field(default_factory=list)

    def publish(
        self, outgoing: Sequence[Outgoing], acknowledged: Callable[[Sequence[Outgoing]], None]
    ) -> None:
        self.sent.extend(outgoing)
        acknowledged(outgoing)


def policy_set(routing: Routing, *slugs: str, text: bytes = TEXT) -> PolicySet:
    return PolicySet.of({slug: make_policy(slug, text + slug.encode()) for slug in slugs}, routing)


class Harness:
    """A pipeline with a judge that answers at once and a broker that takes everything."""

    def __init__(self, tracing: Tracing, policies: PolicySet, judge: Judge | None = None) -> None:
        settings = Settings(kafka={"shadow_topic": "shadows", "topics": ["posts"]})  # type: ignore[arg-type]
        self.publisher = FakePublisher()
        self.registry = CollectorRegistry()
        self.offsets = PartitionOffsets(PLACE, 1)
        self.next_offset = 0
        self.pipeline = Pipeline(
            settings,
            policies,
            parser=PostParser(settings.post),
            judge=judge or ScriptedJudge(),
            publisher=self.publisher,  # type: ignore[arg-type] # the slice of it that is used
            clock=FakeClock(),
            metrics=Metrics(self.registry),
            tracing=tracing,
        )

    def accept(self, *posts: dict[str, Any], headers: Sequence[tuple[str, bytes]] = ()) -> None:
        records = []
        for post in posts:
            value = orjson.dumps({"text": "[violates]", **post})
            records.append(FakeRecord(self.next_offset, value, headers))
            self.next_offset += 1
        self.pipeline.accept(self.offsets, records)

    def verdicts(self, topic: str = "stream-guard.verdicts") -> list[dict[str, Any]]:
        self.pipeline.dispatch(flush=True)
        return [
            orjson.loads(sent.value or b"") for sent in self.publisher.sent if sent.topic == topic
        ]

    def judged(self, topic: str = "stream-guard.verdicts") -> list[tuple[str, str, str]]:
        return [
            (v["content"]["id"], v["policy"]["id"], v["provenance"]["route_mode"])
            for v in self.verdicts(topic)
        ]


@pytest.fixture
def tracing() -> Iterator[Tracing]:
    made = Tracing(Settings().telemetry, group="test")
    yield made
    made.close()


def test_a_topic_with_routes_of_its_own_is_asked_once(tracing: Tracing) -> None:
    harness = Harness(tracing, policy_set(Routing(default=("a", "b")), "a", "b"))
    harness.accept({"id": "1"}, {"id": "2"})
    assert harness.judged() == [
        ("1", "a", "live"),
        ("2", "a", "live"),
        ("1", "b", "live"),
        ("2", "b", "live"),
    ]
    assert harness.offsets.position() == 2


def test_rules_look_at_each_post_its_headers_and_its_fields(tracing: Tracing) -> None:
    rules = (
        RouteRule("surface", (Condition("header", ("listing",), "surface"),), ("b",)),
        RouteRule("verified", (Condition("field", (True,), "/seller/verified"),), ("c",)),
    )
    harness = Harness(tracing, policy_set(Routing(rules, default=("a",)), "a", "b", "c"))
    harness.accept({"id": "1"}, {"id": "2", "seller": {"verified": True}}, {"id": "3", "seller": 1})
    harness.accept({"id": "4"}, headers=[("surface", b"listing")])
    assert sorted(harness.judged()) == [
        *[("1", "a", "live"), ("2", "c", "live"), ("3", "a", "live"), ("4", "b", "live")]
    ]


def test_a_record_that_is_no_post_is_a_dead_letter_where_routes_depend_on_the_post(
    tracing: Tracing,
) -> None:
    routing = Routing(default=("a",), shadows=(Shadow(100, "id", "b"),))
    harness = Harness(tracing, policy_set(routing, "a", "b"))
    harness.pipeline.accept(harness.offsets, [FakeRecord(0, b"{")])
    assert [sent.topic for sent in harness.publisher.sent] == ["stream-guard.dead-letters"]
    assert harness.offsets.position() == 1


def test_a_canary_is_marked_and_stands_in_its_policys_place(tracing: Tracing) -> None:
    routing = Routing(default=("a",), canaries=(Canary(100, "author", "a", "next"),))
    harness = Harness(tracing, policy_set(routing, "a", "next"))
    harness.accept({"id": "1", "author": "x"}, {"id": "2"})
    assert sorted(harness.judged()) == [("1", "next", "canary"), ("2", "a", "live")]


def test_a_shadow_goes_to_its_own_topic_and_recommends_nothing(tracing: Tracing) -> None:
    routing = Routing(default=("a",), shadows=(Shadow(100, "id", "b"),))
    harness = Harness(tracing, policy_set(routing, "a", "b"))
    harness.accept({"id": "1"})
    assert harness.judged() == [("1", "a", "live")]
    assert harness.judged("shadows") == [("1", "b", "shadow")]
    [shadow], [live] = harness.verdicts("shadows"), harness.verdicts()
    assert (shadow["decision"], shadow["action"], shadow["needs_review"]) == (
        "violates",
        "none",
        False,
    )
    assert (live["decision"], live["action"]) == ("violates", "review")
    assert harness.offsets.position() == 1, "the record owes its shadow's verdict as well"
    labels = {"policy": "b", "decision": "violates", "tier": "scripted", "mode": "shadow"}
    assert harness.registry.get_sample_value("stream_guard_verdicts_total", labels) == 1


def test_cut_reasoning_is_counted_by_policy(tracing: Tracing) -> None:
    judge = ManualJudge()
    harness = Harness(tracing, policy_set(Routing(default=("a", "b")), "a", "b"), judge)
    harness.accept({"id": "1"}, {"id": "2"})
    harness.pipeline.dispatch(flush=True)
    for cut in (True, False):
        wanted = [one for one in judge.waiting if one.policy.id == ("a" if cut else "b")]
        judge.answer(wanted, provenance=Provenance("safeguard", "model", reasoning_cut=cut))
    assert [
        (one["policy"]["id"], one["provenance"]["reasoning_cut"], one["needs_review"])
        for one in harness.verdicts()
    ] == [("a", True, True), ("a", True, True), ("b", False, False), ("b", False, False)]
    for policy, count in (("a", 2), ("b", None)):
        labels = {"policy": policy}
        found = harness.registry.get_sample_value("stream_guard_reasoning_cuts_total", labels)
        assert found == count


def test_posts_in_flight_keep_the_version_that_they_began_with(tracing: Tracing) -> None:
    old = policy_set(Routing(default=("a",)), "a")
    new = policy_set(Routing(default=("a", "b")), "a", "b", text=TEXT + b" Twice.")
    harness = Harness(tracing, old)
    harness.accept({"id": "1"})
    harness.pipeline.switch(new)
    harness.accept({"id": "2"})
    found = {
        (v["content"]["id"], v["policy"]["id"], v["policy"]["sha256"]) for v in harness.verdicts()
    }
    assert found == {
        ("1", "a", old.policies["a"].sha256),
        ("2", "a", new.policies["a"].sha256),
        ("2", "b", new.policies["b"].sha256),
    }
    assert harness.offsets.position() == 2


def test_a_switch_may_bring_routes_by_post_and_take_them_away(tracing: Tracing) -> None:
    fixed = policy_set(Routing(default=("a",)), "a", "b")
    shared = policy_set(Routing(default=("a",), shadows=(Shadow(100, "id", "b"),)), "a", "b")
    harness = Harness(tracing, fixed)
    for number, policies in enumerate((fixed, shared, fixed)):
        harness.pipeline.switch(policies)
        harness.accept({"id": str(number)})
    assert harness.judged("shadows") == [("1", "b", "shadow")]
    assert [post for post, _, _ in harness.judged()] == ["0", "1", "2"]


def test_versions_of_a_policy_never_share_a_batch() -> None:
    batcher = Batcher(10, 1.0)
    post = Post("1", "text", "", 4)
    for number, text in enumerate((b"one", b"two", b"one")):
        batcher.offer(JudgeRequest(str(number), post, make_policy("a", text)), 0.0)
    assert [[r.id for r in batch] for batch in batcher.flush()] == [["0", "2"], ["1"]]


def test_shadows_without_a_topic_of_their_own_are_refused() -> None:
    policies = policy_set(Routing(default=("a",), shadows=(Shadow(1, "id", "b"),)), "a", "b")
    settings = Settings(policies={"path": Path("guard")})  # type: ignore[arg-type]
    with pytest.raises(PolicyError, match=r"guard/routes\.yaml.*kafka\.shadow_topic"):
        check_routes(policies, ["posts"], settings)
    check_routes(policies, ["posts"], Settings(kafka={"shadow_topic": "shadows"}))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["stream-guard.verdicts", "stream-guard.dead-letters", "posts"])
def test_the_shadow_topic_is_no_other_topic(name: str) -> None:
    with pytest.raises(ValueError, match=r"a separate topic|both read and written"):
        Settings(kafka={"shadow_topic": name, "topics": ["posts"]})  # type: ignore[arg-type]


def test_a_pattern_cannot_match_the_shadow_topic() -> None:
    kafka = Settings(kafka={"shadow_topic": "posts.shadow", "topic_pattern": "posts.*"}).kafka  # type: ignore[arg-type]
    assert "posts.shadow" in kafka.written_topics


def test_the_document_of_a_cloud_event_is_its_data() -> None:
    value = orjson.dumps(
        {
            "specversion": "1.0",
            "id": "e",
            "source": "s",
            "type": "t",
            "data": {"id": "1", "text": "x"},
        }
    )
    headers = [("content-type", b"application/cloudevents+json")]
    post, document = PostParser(Settings().post).parse_document(value, headers)
    assert (post.id, document) == ("1", {"id": "1", "text": "x"})
