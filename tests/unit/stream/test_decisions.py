"""The pipeline makes one event of each decision, refuses bad ones, and lets a person win in both modes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from prometheus_client import CollectorRegistry

from stream_guard.core.kafka_types import Partition
from stream_guard.judging.engine.scripted import ScriptedJudge
from stream_guard.judging.human.judge import HumanFirst
from stream_guard.judging.human.table import DecisionTable
from stream_guard.policies.routing import Routing
from stream_guard.records.decision import encode_decision
from stream_guard.records.post import PostParser
from stream_guard.records.verdict_changes import superseding_id
from stream_guard.settings import DeliverySettings, Settings
from stream_guard.stream.decision_lane import RESTATED_HEADER, DecisionLane
from stream_guard.stream.exactly_once import TransactionalPublisher
from stream_guard.stream.offsets import PartitionOffsets
from stream_guard.stream.person_wins import LateAnswers, PersonWins
from stream_guard.stream.pipeline import Pipeline
from stream_guard.stream.tracing.record_tracer import Tracing
from stream_guard.telemetry.metrics import Metrics
from stream_guard.testing import ManualJudge, MemoryRecord
from tests.decisions import make_decision
from tests.unit.stream.test_pipeline_routing import FakeClock, FakePublisher, policy_set

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.judging.contract import Judge
    from stream_guard.records.decision import Decision
    from stream_guard.stream.in_flight import Acknowledged, Outgoing

TOPIC = "stream-guard.decisions"
POLICIES = policy_set(Routing(default=("spam",)), "spam")
POLICY = POLICIES.policies["spam"]
HASH = {"0": "5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9"}
AT_MS = 1_700_000_001_000


def decide(kind: str = "review", **changes: Any) -> Decision:  # noqa: ANN401
    """Return a decision about the post ``p0`` with the text ``0``, by the policy as it is."""
    content = {"sha256": HASH["0"]} | changes.pop("content", {})
    policy = {"sha256": POLICY.sha256} | changes.pop("policy", {})
    return make_decision(kind, content=content, policy=policy, **changes)


class SlowPublisher(FakePublisher):
    """Acknowledges when it is told."""

    def publish(self, outgoing: Sequence[Outgoing], acknowledged: Acknowledged) -> None:
        self.sent.extend(outgoing)
        self.waiting = [*getattr(self, "waiting", []), (outgoing, acknowledged)]

    def acknowledge(self) -> None:
        waiting, self.waiting = self.waiting, []
        for outgoing, acknowledged in waiting:
            acknowledged(outgoing)


class Rig:
    """A pipeline with people's decisions in front of a scripted judge."""

    def __init__(
        self,
        publisher: Any = None,  # noqa: ANN401
        judge: Judge | None = None,
        review_topic: str | None = None,
        **post: object,
    ) -> None:
        settings = Settings(
            kafka={"topics": ["posts"], "review_topic": review_topic},  # type: ignore[arg-type]
            review={"sample": {"*": {"*": 1}}},  # type: ignore[arg-type]
            batching={"size_max": 1},  # type: ignore[arg-type]
            post=post,  # type: ignore[arg-type]
        )
        self.metrics = Metrics(CollectorRegistry())
        tracing = Tracing(settings.telemetry, group="test", exporter=None, metrics=self.metrics)
        self.table = DecisionTable()
        self.publisher = publisher or FakePublisher()
        clock = FakeClock()
        human = HumanFirst(judge or ScriptedJudge(), self.table, clock=clock, metrics=self.metrics)
        self.late = LateAnswers(self.table, settings.kafka, tracing, clock)
        self.pipeline = Pipeline(
            settings,
            POLICIES,
            parser=PostParser(settings.post),
            judge=human,
            publisher=publisher
            if isinstance(publisher, TransactionalPublisher)
            else PersonWins(self.publisher, self.late),
            clock=clock,
            metrics=self.metrics,
            tracing=tracing,
            decisions=DecisionLane(settings, self.table, self.metrics),
        )
        self.offsets = {
            topic: PartitionOffsets(Partition(topic, 0), 1) for topic in ("posts", TOPIC)
        }

    def write(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes]] = (),
        at_ms: int = AT_MS,
    ) -> None:
        offsets = self.offsets[topic]
        record = MemoryRecord(topic, 0, offsets.next_offset or 0, at_ms, key, value, [*headers])
        self.pipeline.accept(offsets, [record])
        self.pipeline.dispatch(flush=True)

    def decide(self, decision: Decision, **at: Any) -> None:  # noqa: ANN401
        self.write(TOPIC, *encode_decision(decision), **at)

    def post(self, text: str = "0", id: str = "p0", key: bytes | None = b"k") -> None:  # noqa: A002
        self.write("posts", key, orjson.dumps({"id": id, "text": text}))

    def verdicts(self) -> list[dict[str, Any]]:
        topic = "stream-guard.verdicts"
        return [orjson.loads(one.value or b"") for one in self.publisher.sent if one.topic == topic]

    def reasons(self) -> list[str]:
        topic = "stream-guard.dead-letters"
        return [
            dict(one.headers)["sg_reason"].decode()
            for one in self.publisher.sent
            if one.topic == topic
        ]

    def restated(self) -> list[dict[str, Any]]:
        return [orjson.loads(one.value or b"") for one in self.publisher.sent if one.topic == TOPIC]

    def owes(self) -> int:
        return self.pipeline.live.unfinished([one.partition for one in self.offsets.values()])


def test_a_decision_makes_one_superseding_verdict_and_then_answers_the_same_content() -> None:
    rig = Rig()
    rig.post("[violates]", id="other")
    rig.post()
    decision = decide()
    rig.decide(decision)
    rig.post()
    first, second, superseding, again = rig.verdicts()
    assert first["provenance"]["tier"] == second["provenance"]["tier"] == "scripted"
    assert decision.about is not None
    assert superseding["supersedes"] == decision.about.verdict_id
    assert superseding["id"] == superseding_id(decision.id, decision.about.verdict_id)
    assert again["provenance"]["tier"] == "human"
    assert (again["action"], again["policy"]["rationale"]) == ("none", "satire")
    assert again["revision"] == superseding["revision"] == decision.decided_at
    assert rig.owes() == 0
    assert rig.offsets[TOPIC].committable() == 1


@pytest.mark.parametrize(
    "post", [{"text": "edited"}, {"id": "p1"}, {"text": "0", "id": "p1"}], ids=str
)
def test_another_text_or_another_content_is_judged_by_the_machine(post: dict[str, str]) -> None:
    rig = Rig()
    rig.decide(decide())
    rig.post(**post)
    assert rig.verdicts()[-1]["provenance"]["tier"] == "scripted"


def test_a_decision_has_an_end() -> None:
    rig = Rig()
    rig.decide(decide(valid_until=1_001))  # the clock stands at 1,000
    rig.post()
    assert rig.verdicts()[-1]["valid_until"] == 1_001
    rig.decide(decide(valid_until=1_000, id="d-2"))
    rig.post()
    assert rig.verdicts()[-1]["provenance"]["tier"] == "scripted"


@pytest.mark.parametrize("kind", ["retraction", "expiry"])
def test_a_decision_that_is_taken_back_or_expired_answers_nothing(kind: str) -> None:
    rig = Rig()
    rig.decide(decide())
    rig.decide(decide(kind, id="d-2", decided_at=AT_MS + 1))
    rig.post()
    *_, event, verdict = rig.verdicts()
    assert ("retracts" in event, "expired" in event) == (kind == "retraction", kind == "expiry")
    assert verdict["provenance"]["tier"] == "scripted"


def test_a_late_decision_changes_nothing_and_the_standing_one_is_written_again() -> None:
    rig = Rig()
    rig.decide(decide(decided_at=AT_MS, id="new"))
    rig.decide(decide("retraction", decided_at=AT_MS - 1, id="old"))
    rig.post()
    _, late, verdict = rig.verdicts()
    assert not {"supersedes", "retracts", "expired"} & set(late)
    assert verdict["decision_id"] == "new"
    [restated] = rig.restated()
    assert restated["id"] == "new"
    rig.decide(decide(decided_at=AT_MS, id="new"))  # read again after a crash: the same event
    assert rig.verdicts()[-1]["id"] == rig.verdicts()[0]["id"]
    before = len(rig.verdicts())
    key, value, headers = encode_decision(decide(decided_at=AT_MS, id="new"))
    rig.write(TOPIC, key, value, [*headers, (RESTATED_HEADER, b"1")])
    assert len(rig.verdicts()) == before
    assert rig.owes() == 0


@pytest.mark.parametrize(
    ("decision", "reason"),
    [
        (decide(decided_at=AT_MS + 300_001), "future_decision"),
        (decide(decided_by={"id": "x", "role": "stranger"}), "unknown_role"),
        (decide(source={"topic": "elsewhere"}), "unknown_verdict"),
        (decide(source={"topic": TOPIC}), "unknown_verdict"),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_a_refused_decision_becomes_a_dead_letter_and_disturbs_nothing(
    decision: Decision, reason: str
) -> None:
    rig = Rig()
    rig.decide(decide(id="good", decided_at=AT_MS - 5))
    rig.decide(decision)
    rig.write(TOPIC, b"k", b"{")
    rig.post()
    assert rig.reasons() == [reason, "decision"]
    assert rig.verdicts()[-1]["decision_id"] == "good"
    # The refused record would have dropped the good one at the next compaction.
    assert [one["id"] for one in rig.restated()] == ["good"]
    assert rig.owes() == 0
    assert rig.offsets[TOPIC].committable() == 3


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"decided_at": "soon"}, "decision"),
        ({"about": "everything"}, "decision"),
        ({"outcome": [None]}, "decision"),
        ({"reason": "x" * 2_001}, "decision"),
        ({"reason": "x" * (64 << 10)}, "too_large"),
        ({"about": None}, "decision"),
    ],
    ids=str,
)
def test_odd_types_and_huge_fields_are_dead_letters_that_disturb_nothing(
    changes: dict[str, Any], reason: str
) -> None:
    rig = Rig()
    good = decide(id="good")
    rig.decide(good)
    key, value, headers = encode_decision(good)
    document = orjson.loads(value)
    rig.write(TOPIC, key, orjson.dumps(document | {"id": "bad", "decided_at": AT_MS} | changes))
    rig.write(TOPIC, key, orjson.dumps(document | {"id": "worse"} | changes), headers)
    rig.post()
    assert rig.reasons() == [reason, reason]
    assert rig.verdicts()[-1]["decision_id"] == "good"
    assert rig.owes() == 0
    assert rig.offsets[TOPIC].committable() == 3


def test_a_made_up_verdict_id_is_unknown() -> None:
    about = decide().about
    assert about is not None
    rig = Rig()
    rig.decide(
        decide().model_copy(update={"about": about.model_copy(update={"verdict_id": "0" * 32})})
    )
    assert rig.reasons() == ["unknown_verdict"]


def test_a_null_value_forgets_and_a_breaker_reset_owes_nothing() -> None:
    rig = Rig()
    key, *_ = encode_decision(decide())
    rig.decide(decide())
    rig.write(TOPIC, key, None)
    rig.decide(make_decision("breaker_reset"))
    rig.post()
    assert rig.verdicts()[-1]["provenance"]["tier"] == "scripted"
    assert rig.owes() == 0


async def test_a_decision_that_comes_while_the_model_thinks_wins() -> None:
    judge = ManualJudge()
    rig = Rig(judge=judge)
    rig.post()
    rig.decide(decide())
    judge.answer()
    assert [one["provenance"]["tier"] for one in rig.verdicts()] == ["human", "human"]


def test_a_decision_that_comes_while_the_broker_writes_has_the_last_word() -> None:
    publisher = SlowPublisher()
    rig = Rig(publisher)
    rig.post()
    rig.decide(decide())
    publisher.acknowledge()
    assert rig.owes() == 1, "the record owes the person's answer"
    publisher.acknowledge()
    machine, superseding, late = rig.verdicts()
    assert late["supersedes"] == machine["id"]
    assert late["id"] == superseding_id("d-1", machine["id"])
    assert superseding["revision"] == late["revision"]
    assert rig.owes() == 0
    assert rig.offsets["posts"].committable() == 1


def test_a_deletion_retracts_and_waits_for_the_verdict_before_it() -> None:
    publisher = SlowPublisher()
    rig = Rig(publisher, deletes={"/op": "d"}, deleted_id="/before/id", tombstones="delete")
    rig.post()
    rig.write("posts", b"k", orjson.dumps({"op": "d", "before": {"id": "p0"}}))
    rig.write("posts", b"k", None)
    assert len(rig.verdicts()) == 1
    for _ in range(3):
        publisher.acknowledge()
    verdict, deleted, tombstone = rig.verdicts()
    assert "retracts" not in verdict
    assert deleted["retracts"] == {
        "verdict_id": None, "content_id": "p0", "key": "k", "cause": "deleted",
    }  # fmt: skip
    assert tombstone["retracts"]["content_id"] is None
    assert {one.key for one in publisher.sent} == {b"k"}
    assert rig.owes() == 0
    assert rig.offsets["posts"].committable() == 3


def test_deletions_are_given_up_with_the_post_that_they_wait_for() -> None:
    rig = Rig(SlowPublisher(), tombstones="delete")
    rig.post()
    for _ in range(2):
        rig.write("posts", b"k", None)
    live = rig.pipeline.live
    assert rig.pipeline.give_up([live[rig.offsets["posts"].partition][0]]) == 3
    assert not live.unfinished(live), "a drain would wait for them until its limit"


def test_a_deletion_that_names_nothing_is_skipped() -> None:
    rig = Rig(tombstones="delete")
    rig.write("posts", None, None)
    assert rig.verdicts() == []
    assert rig.offsets["posts"].committable() == 1


class Session:
    """Keeps what each transaction writes."""

    def __init__(self) -> None:
        self.written: list[Outgoing] = []
        self.wrote = asyncio.Event()

    async def write(self, outgoing: Sequence[Outgoing], position: int) -> None:
        del position
        self.written += outgoing
        self.wrote.set()

    async def close(self) -> None:
        return

    async def claim(self, partition: Partition) -> Session:
        del partition
        return self


@pytest.mark.parametrize("decided", [True, False])
async def test_exactly_once_writes_the_persons_answer_in_the_place_of_the_machines(
    decided: bool,  # noqa: FBT001
) -> None:
    session = Session()
    publisher = TransactionalPublisher(
        session,  # type: ignore[arg-type] # the slice of it that is used
        DeliverySettings(transaction_interval_ms=1),
        Metrics(CollectorRegistry()),
        fenced_pause_s=0,
    )
    rig = Rig(publisher, review_topic="review")
    publisher.replace = rig.late.replace
    place = rig.offsets["posts"].partition
    await publisher.claim(place, "assigned")
    publisher.begin(rig.offsets["posts"])
    rig.post()  # judged and held: its transaction begins in the next turn of the event loop
    decision = decide("review" if decided else "retraction")
    rig.table.apply(decision, encode_decision(decision)[1])
    await session.wrote.wait()
    verdict, *items = session.written
    assert (orjson.loads(verdict.value or b"")["provenance"]["tier"] == "human") == decided
    # Nobody need review what a person has decided.
    assert [one.topic for one in items] == ([] if decided else ["review"])
    await publisher.flush()
    assert rig.owes() == 0
    assert rig.metrics.review_items._value.get() == len(items)
    await publisher.stop()
