"""Posts go to a larger model for a reason, once, and come back as one final verdict."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, cast

import orjson
import pytest
from jsonschema import Draft202012Validator
from prometheus_client import CollectorRegistry
from referencing import Registry, Resource

from stream_guard.core.kafka_types import Partition
from stream_guard.judging.assembly import make_cascade
from stream_guard.judging.human.judge import HumanFirst
from stream_guard.judging.human.table import DecisionTable
from stream_guard.policies.policy import PolicySet, make_policy
from stream_guard.records.contracts import schema_names, writer_schema
from stream_guard.records.decision import encode_decision
from stream_guard.records.escalation import escalated_id, escalated_ids
from stream_guard.records.post import PostParser
from stream_guard.settings import Settings
from stream_guard.stream.escalated import EscalatedInput, LateInput
from stream_guard.stream.escalation import Escalations
from stream_guard.stream.offsets import PartitionOffsets
from stream_guard.stream.pipeline import Pipeline
from stream_guard.stream.tracing.record_tracer import Tracing
from stream_guard.telemetry.metrics import Metrics
from stream_guard.testing import ManualClock, MemoryRecord
from tests.decisions import make_decision
from tests.escalations import POLICIES, POLICY, TOPIC, WordJudge, seen
from tests.unit.stream.test_pipeline_routing import FakePublisher

SCHEMAS: Any = Registry().with_resources(
    (schema["$id"], Resource.from_contents(schema)) for schema in map(writer_schema, schema_names())
)


class Deployment:
    """A pipeline with a scripted model, and what it has published."""

    def __init__(
        self,
        name: str,
        place: int,
        policies: PolicySet = POLICIES,
        kafka: dict[str, Any] | None = None,
        review: dict[str, Any] | None = None,
        **cascade: Any,  # noqa: ANN401
    ) -> None:
        self.settings = settings = Settings(
            kafka={"topics": ["posts"], "group_id": name, **(kafka or {})},
            cascade=cascade,
            review=review or {},
            batching={"size_max": 1},
        )
        self.metrics = Metrics(CollectorRegistry())
        self.position: int | None = None
        self.publisher = cast("Any", FakePublisher())
        self.judge = WordJudge(name, place)
        self._offset = 0
        read: list[Any] = []
        if settings.cascade.escalated_topic is not None:
            read.append(EscalatedInput(settings, settings.cascade.escalated_topic))
        if settings.cascade.escalation_deadline_s is not None:
            read.append(LateInput(TOPIC, lambda _: self.position))
        self.pipeline = Pipeline(
            settings,
            policies,
            parser=PostParser(settings.post),
            judge=self.judge,
            publisher=self.publisher,
            clock=ManualClock(),
            metrics=self.metrics,
            tracing=Tracing(settings.telemetry, group=name),
            escalations=Escalations(settings, self.metrics),
            inputs=read,
        )

    def take(self, topic: str, value: bytes | None, key: bytes | None = b"k", **more: Any) -> None:  # noqa: ANN401
        """Read a record, and judge it."""
        record = MemoryRecord(topic, 0, self._offset, 1_700_000_000_000, key, value, **more)
        offsets = PartitionOffsets(Partition(topic, 0), 1)
        offsets.pass_to(self._offset)
        self._offset += 1
        self.pipeline.accept(offsets, [record])
        self.pipeline.dispatch(flush=True)

    def post(self, text: str, **more: Any) -> None:  # noqa: ANN401
        self.take("posts", orjson.dumps({"id": f"p{self._offset}", "text": text, **more}))

    def sent(self, topic: str) -> list[Any]:
        return [orjson.loads(one.value) for one in self.publisher.sent if one.topic == topic]

    @property
    def verdicts(self) -> list[Any]:
        return self.sent(self.settings.kafka.verdict_topic)

    @property
    def finished(self) -> int:
        return self.pipeline.finished

    def hand_over(self, other: Deployment) -> None:
        """Let another deployment read what this one has escalated so far."""
        for one in self.publisher.sent:
            if one.topic == self.settings.cascade.escalation_topic:
                other.take(one.topic, one.value, one.key, headers=one.headers)


def small(**more: Any) -> Deployment:  # noqa: ANN401
    return Deployment("small", 0, escalation_topic=TOPIC, **more)


def large(**more: Any) -> Deployment:  # noqa: ANN401
    return Deployment("large", 1, escalated_topic=TOPIC, **more)


def check(name: str, document: Any) -> None:  # noqa: ANN401
    Draft202012Validator(writer_schema(name), registry=SCHEMAS).validate(document)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("safe", None),
        ("mild", None),
        ("severe", "severe"),
        ("unclear", "malformed"),
        ("slow", "timeout"),
    ],
)
@pytest.mark.parametrize("mode", ["provisional", "withhold"])
async def test_what_is_uncertain_or_severe_goes(text: str, reason: str | None, mode: str) -> None:
    first = small(escalation=mode)
    first.post(text)
    escalated = first.sent(TOPIC)
    assert [hop["reason"] for one in escalated for hop in one["hops"]] == [reason][: bool(reason)]
    published = reason is None or mode == "provisional"
    assert [one.get("provisional", False) for one in first.verdicts] == [bool(reason)][:published]
    assert first.finished == 1
    for one in escalated:
        check("escalation-1.0.json", one)
    for one in first.verdicts:
        check("verdict-1.1.json", one)


async def test_why_can_be_chosen_and_shadows_stay() -> None:
    first = small(escalation_why=["severe"])
    first.post("unclear")
    first.post("severe")
    assert [one["hops"][0]["reason"] for one in first.sent(TOPIC)] == ["severe"]


@pytest.mark.parametrize("mode", ["provisional", "withhold"])
async def test_the_larger_models_verdict_is_the_final_one(mode: str) -> None:
    first, second = small(escalation=mode), large()
    first.post("severe safe", author="a", tenant="t", title="Title", parent="Before.")
    first.hand_over(second)
    first.hand_over(second)  # read again after a crash
    final, again = second.verdicts
    check("verdict-1.1.json", final)
    assert final["id"] == again["id"]
    [escalation] = first.sent(TOPIC)
    before = escalation["verdict"]
    assert final["decision"] == "safe"
    assert final["supersedes"] == before["id"]
    assert final["id"] == escalated_id(before["id"], 1)
    assert [hop["deployment"] for hop in final["escalated"]] == ["small"]
    assert final["source"] == before["source"]
    assert final["content"] == before["content"]
    assert second.finished == 2
    values = [one.value for one in (*first.publisher.sent, *second.publisher.sent)]
    verdict_values = [value for value in values if b'"hops"' not in value]
    for order in (verdict_values, verdict_values[::-1]):
        [verdict] = seen(order, decisions=None, provisional=False)
        assert verdict.id == final["id"]
    # In the wrong order the provisional verdict is ignored, even by a service that acts on those.
    assert [one.id for one in seen(verdict_values[::-1])] == [final["id"]]


async def test_a_service_that_can_undo_hears_that_a_provisional_violation_is_none() -> None:
    first, second = small(), large()
    first.post("severe safe")
    first.hand_over(second)
    values = [first.publisher.sent[0].value, second.publisher.sent[0].value]
    wanted = {"decisions": ["violates"], "events": True}
    assert [one.decision for one in seen(values, **wanted)] == ["violates", "safe"]


@pytest.mark.parametrize(
    ("text", "why"),
    [("severe unclear", "escalation_undecided"), ("severe error", "escalation_failed")],
)
async def test_an_answer_that_is_less_than_the_first_replaces_nothing(text: str, why: str) -> None:
    first, second = small(escalation="withhold"), large()
    first.post(text)
    first.hand_over(second)
    [final] = second.verdicts
    check("verdict-1.1.json", final)
    assert (final["decision"], final["policy"]["category"]) == ("violates", "S2")
    assert final["provenance"]["degraded"] == [why]
    assert final["provenance"]["trail"][-1]["reason"] == f"{why}:large"
    assert "provisional" not in final
    assert second.sent(second.settings.kafka.dead_letter_topic) == []


async def test_a_deployment_counts_its_own_tokens_also_where_the_first_verdict_stays() -> None:
    first, second = small(), large()
    first.judge.output_tokens, second.judge.output_tokens = 5, 70
    first.post("severe unclear")
    first.hand_over(second)
    assert second.verdicts[0]["provenance"]["output_tokens"] == 5, "the verdict so far"
    for one, tokens in ((first, 5), (second, 70)):
        counted = one.metrics.registry.get_sample_value(
            "stream_guard_tokens_total", {"kind": "output"}
        )
        assert counted == tokens


async def test_what_neither_decides_is_the_larger_models_own() -> None:
    first, second = small(), large()
    first.post("unclear slow")
    first.hand_over(second)
    [final] = second.verdicts
    assert final["decision"] == "undetermined"
    assert final["provenance"]["model"] == "large"


async def test_a_loop_ends_at_the_deployment_where_it_began() -> None:
    first = Deployment("small", 0, escalation_topic=TOPIC)
    first.post("severe")
    again = Deployment("small", 0, escalated_topic=TOPIC, escalation_topic="on")
    first.hand_over(again)
    [final] = again.verdicts
    assert final["provenance"]["degraded"] == ["escalation_loop"]
    assert again.judge.asked == []
    assert again.sent("on") == []


async def test_a_post_goes_to_no_topic_twice_and_passes_no_more_deployments_than_the_limit() -> (
    None
):
    first = Deployment("a", 0, escalation_topic="x")
    first.post("severe severe")
    second = Deployment("b", 1, escalated_topic="x", escalation_topic="y")
    first.hand_over(second)
    [onward] = second.sent("y")
    assert [hop["deployment"] for hop in onward["hops"]] == ["a", "b"]
    check("escalation-1.0.json", onward)
    third = Deployment("c", 1, escalated_topic="y", escalation_topic="x")
    second.hand_over(third)
    assert third.sent("x") == []
    [final] = third.verdicts
    assert [hop["deployment"] for hop in final["escalated"]] == ["a", "b"]
    assert final["supersedes"] == onward["verdict"]["id"]
    limited = Deployment("c", 1, escalated_topic="y", escalation_topic="z", escalation_hops_max=2)
    second.hand_over(limited)
    assert limited.sent("z") == []
    short = Deployment("c", 1, escalated_topic="y", escalation_hops_max=1)
    second.hand_over(short)
    assert short.verdicts[0]["provenance"]["degraded"] == ["escalation_loop"]


EDITED = make_policy("spam", b"# Spam\nS1: Advertising\nS2: Fraud\nEdited.\n")


@pytest.mark.parametrize("versions", ["own", "same"])
async def test_another_version_of_the_policy_is_named_or_refused(versions: str) -> None:
    first = small()
    second = large(
        policies=PolicySet({"spam": EDITED}, {"posts": ("spam",)}), escalated_policy=versions
    )
    first.post("severe safe")
    first.hand_over(second)
    [final] = second.verdicts
    if versions == "own":
        assert (final["decision"], final["policy"]["sha256"]) == ("safe", EDITED.sha256)
    else:
        assert (final["decision"], final["policy"]["sha256"]) == ("violates", POLICY.sha256)
        assert final["provenance"]["degraded"] == ["escalation_policy_differs"]


async def test_a_policy_that_is_unknown_leaves_the_verdict_so_far() -> None:
    first = small()
    other = PolicySet({"other": replace(POLICY, id="other")}, {"posts": ("other",)})
    second = large(policies=other)
    first.post("severe safe")
    first.hand_over(second)
    [final] = second.verdicts
    assert final["provenance"]["degraded"] == ["escalation_policy_missing"]


async def test_a_topic_that_refuses_the_post_gets_the_verdict_alone() -> None:
    first, second = small(), large()
    first.post("severe safe")
    for one in first.publisher.sent:
        if one.topic == TOPIC:
            assert one.shrink()
    [escalation] = first.sent(TOPIC)
    check("escalation-1.0.json", escalation)
    assert escalation["post"] is None
    first.hand_over(second)
    [final] = second.verdicts
    assert "escalation_cut" in final["provenance"]["degraded"]


@pytest.mark.parametrize(
    "change",
    [
        lambda _: b"not json",
        lambda _: None,
        lambda value: value.replace(b'"schema_version":"1.0"', b'"schema_version":"2.0"'),
        lambda value: value.replace(b'"hops"', b'"leaps"'),
        lambda value: value.replace(b'"text":"severe', b'"text":"altered severe'),
    ],
)
async def test_a_malformed_escalation_is_a_dead_letter_and_says_nothing_of_the_post(
    change: Any,  # noqa: ANN401
) -> None:
    first, second = small(), large()
    first.post("severe safe")
    [value] = [one.value for one in first.publisher.sent if one.topic == TOPIC]
    second.take(TOPIC, change(value))
    second.pipeline.write_dead_letters(0.0, flush=True)
    [letter] = second.publisher.sent
    headers = dict(letter.headers)
    assert headers["sg_reason"] == b"escalation"
    assert b"severe" not in headers["sg_message"]


@pytest.mark.parametrize(("position", "published"), [(None, 1), (0, 1), (1, 0)])
async def test_a_withheld_verdict_becomes_provisional_at_its_deadline(
    position: int | None, published: int
) -> None:
    deadline = {"escalation_deadline_s": 60, "escalation_group": "large"}
    first = small(escalation="withhold", **deadline)
    first.post("severe safe")
    late = small(escalation="withhold", **deadline)
    late.position = position
    first.hand_over(late)
    assert len(late.verdicts) == published
    assert late.finished == 1
    for verdict in late.verdicts:
        check("verdict-1.1.json", verdict)
        [escalation] = first.sent(TOPIC)
        assert verdict["id"] == escalation["verdict"]["id"]
        assert verdict["provisional"] is True
        assert verdict["provenance"]["degraded"] == ["escalation_late"]


async def test_people_review_what_the_last_deployment_leaves() -> None:
    kafka = {"review_topic": "review"}
    first, second = small(kafka=kafka), large(kafka=kafka)
    first.post("severe unclear")
    first.hand_over(second)
    assert first.sent("review") == []
    [item] = second.sent("review")
    assert item["verdict_id"] == second.verdicts[0]["id"]


@pytest.mark.parametrize("text", ["severe unclear", "unclear severe"])
async def test_an_items_reach_is_that_of_the_posts_own_record(text: str) -> None:
    kafka, review = {"review_topic": "review"}, {"reach": "/followers"}
    first, second = small(kafka=kafka, review=review), large(kafka=kafka)
    first.post(text, followers=1_000)
    [escalation] = first.sent(TOPIC)
    check("escalation-1.0.json", escalation)
    first.hand_over(second)
    [item] = second.sent("review")
    assert item["priority"]["reach"] == 1_000


async def test_a_reach_passes_a_deployment_where_nobody_reviews() -> None:
    first = small(kafka={"review_topic": "review"}, review={"reach": "/followers"})
    first.post("severe severe", followers=1_000)
    middle = large(escalation_topic="on")
    first.hand_over(middle)
    [onward] = middle.sent("on")
    assert onward["reach"] == 1_000


async def test_an_escalation_of_an_earlier_version_has_no_reach() -> None:
    first, second = small(), large(kafka={"review_topic": "review"})
    first.post("severe unclear")
    [escalation] = first.sent(TOPIC)
    del escalation["reach"]
    second.take(TOPIC, orjson.dumps(escalation))
    [item] = second.sent("review")
    assert item["priority"]["reach"] is None


async def test_late_topics_have_no_lag_and_escalations_are_counted() -> None:
    deadline = {"escalation_deadline_s": 60, "escalation_group": "large"}
    first = small(escalation="withhold", **deadline)
    assert not first.pipeline.routes.has_lag(TOPIC)
    assert first.pipeline.routes.has_lag("posts")
    assert large().pipeline.routes.has_lag(TOPIC)
    first.post("severe")
    counted = first.metrics.escalations.labels("spam", "severe")._value.get()
    assert counted == 1
    await asyncio.sleep(0)


async def test_equal_posts_that_were_escalated_twice_are_judged_once() -> None:
    first, second = small(), large()
    cascade = make_cascade(second.settings, ManualClock(), second.metrics, second.judge)
    await cascade.start(POLICIES)
    second.pipeline._judge = cascade
    first.post("severe safe")
    first.post("severe safe")
    first.hand_over(second)
    assert second.judge.asked == ["severe safe"]
    assert [one["decision"] for one in second.verdicts] == ["safe", "safe"]
    assert len({one["id"] for one in second.verdicts}) == 2


async def test_a_person_wins_over_both_models() -> None:
    first, second = small(), large()
    table = DecisionTable()
    second.pipeline._judge = HumanFirst(
        second.judge, table, clock=ManualClock(), metrics=second.metrics
    )
    first.post("severe severe")
    [escalation] = first.sent(TOPIC)
    so_far = escalation["verdict"]
    decision = make_decision(
        content={"id": so_far["content"]["id"], "sha256": so_far["content"]["sha256"]},
        policy={"id": "spam", "sha256": POLICY.sha256},
    )
    table.apply(decision, encode_decision(decision)[1])
    first.hand_over(second)
    [final] = second.verdicts
    assert final["provenance"]["tier"] == "human"
    assert final["supersedes"] == so_far["id"]
    assert second.judge.asked == []
    values = [one.value for one in (*first.publisher.sent, *second.publisher.sent)]
    verdict_values = [value for value in values if b'"hops"' not in value]
    given = seen(verdict_values[::-1], decisions=None)
    assert given[0].is_human
    assert not [one for one in given if one.provisional]


def test_decisions_about_final_verdicts_are_known() -> None:
    made = "0" * 32
    assert escalated_ids(made) == {made, *(escalated_id(made, hops) for hops in (1, 2, 3))}
