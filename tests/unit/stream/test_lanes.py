"""Lanes in the stream: which partitions are polled, what is counted, and what a reload changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pytest
from prometheus_client import CollectorRegistry

from stream_guard.core.kafka_types import Partition
from stream_guard.policies.lanes import Lane, LaneLimits, Lanes
from stream_guard.policies.policy import PolicySet, make_policy
from stream_guard.policies.routing import Condition, Routing
from stream_guard.records.post import PostParser
from stream_guard.settings import Settings, TelemetrySettings
from stream_guard.stream.escalated import LateInput, SideInput
from stream_guard.stream.offsets import PartitionOffsets
from stream_guard.stream.pipeline import Pipeline
from stream_guard.stream.tracing.record_tracer import Tracing
from stream_guard.telemetry.metrics import Metrics
from stream_guard.testing import ManualClock, ManualJudge
from tests.unit.stream.test_pipeline_routing import FakePublisher, FakeRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

LIVE, OLD, MIXED, MIXED_TOO = (
    Partition("live", 0),
    Partition("old", 0),
    Partition("mixed", 0),
    Partition("mixed", 1),
)
EVERYTHING = (LIVE, OLD, MIXED, MIXED_TOO)
HISTORY = Lane(
    "history",
    (Condition("topic", ("old",)),),
    limits=LaneLimits(records=4),
    backfill=True,
)
NOISY = Lane("noisy", (Condition("tenant", ("noisy",)),), limits=LaneLimits(records=3), goal_s=5)
LANES = Lanes([HISTORY, NOISY])


def policies(lanes: Lanes = LANES, **more: bytes) -> PolicySet:
    made = {
        slug: make_policy(slug, b"S1: Advertising\nAnswer `VIOLATES` or `SAFE`.", metadata=metadata)
        for slug, metadata in {"spam": None, **more}.items()
    }
    return PolicySet.of(made, Routing(default=tuple(made), lanes=lanes))


class Line:
    """A pipeline with a judge that waits, and a source for every partition."""

    def __init__(
        self,
        live: PolicySet | None = None,
        inputs: Sequence[SideInput] = (),
        **batching: int,
    ) -> None:
        settings = Settings(kafka={"topics": ["live"]}, batching=batching)  # type: ignore[arg-type]
        self.clock = ManualClock()
        self.judge = ManualJudge(self.clock)
        self.metrics = Metrics(CollectorRegistry())
        self.offsets = {partition: PartitionOffsets(partition, 1) for partition in EVERYTHING}
        self.next = dict.fromkeys(EVERYTHING, 0)
        self.publisher = FakePublisher()
        self.pipeline = Pipeline(
            settings,
            live or policies(),
            parser=PostParser(settings.post),
            judge=self.judge,
            publisher=self.publisher,  # type: ignore[arg-type] # the slice of it that is used
            clock=self.clock,
            metrics=self.metrics,
            tracing=Tracing(TelemetrySettings(), group="g"),
            inputs=inputs,
        )

    def read(self, partition: Partition, *tenants: str, **more: Any) -> None:  # noqa: ANN401
        records = []
        for tenant in tenants:
            number = self.next[partition]
            self.next[partition] += 1
            value = {"id": str(number), "text": "some text", "tenant": tenant, **more}
            record = FakeRecord(number, orjson.dumps(value), topic=partition.topic)
            record.partition = partition.partition
            records.append(record)
        self.pipeline.accept(self.offsets[partition], records)
        self.pipeline.dispatch(flush=True)

    def pollable(self) -> set[Partition]:
        crowded = self.pipeline.admission.is_crowded()
        return set(self.pipeline.lanes.pollable(EVERYTHING, crowded=crowded))

    def judge_all(self) -> None:
        self.judge.answer()

    def value(self, name: str, lane: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"stream_guard_lane_{name}", {"lane": lane})


def lanes_of(line: Line) -> list[str]:
    return [request.lane.name for request in line.judge.waiting if request.lane is not None]


def test_every_request_has_the_lane_of_its_post() -> None:
    line = Line()
    line.read(LIVE, "a", "noisy")
    line.read(OLD, "noisy")
    assert lanes_of(line) == ["rest", "noisy", "history"]


def test_without_lanes_no_request_has_one_and_every_partition_is_polled() -> None:
    line = Line(policies(Lanes()))
    line.read(LIVE, "a", "noisy")
    assert not line.pipeline.lanes.named
    assert [request.lane for request in line.judge.waiting] == [None, None]
    assert line.pollable() == set(EVERYTHING)


def test_a_topic_that_serves_only_a_full_lane_is_not_polled() -> None:
    line = Line()
    line.read(OLD, "a", "b", "c")
    assert OLD in line.pollable()
    line.read(OLD, "d")
    assert line.pollable() == set(EVERYTHING) - {OLD}
    line.judge_all()
    assert line.pollable() == set(EVERYTHING)


def test_a_mixed_topic_is_polled_for_its_other_lanes_up_to_twice_the_limit() -> None:
    line = Line()
    line.read(MIXED, *["noisy"] * 5)
    assert line.pollable() == set(EVERYTHING), "past its limit of 3, and below 6"
    line.read(MIXED, "noisy")
    # The other partition of the topic has none of them in flight, so the other tenants there are read on.
    assert line.pollable() == set(EVERYTHING) - {MIXED}
    line.judge_all()
    assert line.pollable() == set(EVERYTHING)


@pytest.mark.parametrize(
    "limits", [LaneLimits(bytes=600), LaneLimits(tokens=4), LaneLimits(records=2)]
)
def test_every_limit_counts(limits: LaneLimits) -> None:
    lane = Lane("all", limits=limits)
    line = Line(policies(Lanes([lane])))
    line.read(LIVE, "a")
    assert line.pollable() == set(EVERYTHING)
    line.read(LIVE, "a", "a")
    assert line.pollable() == set()


def test_a_lane_without_limits_gets_half_its_share_once_it_is_crowded() -> None:
    lanes = Lanes([Lane("live", (Condition("topic", ("live",)),), weight=3), Lane("others")])
    line = Line(policies(lanes), in_flight_records_max=80)
    line.read(LIVE, *["a"] * 39)
    assert line.pollable() == set(EVERYTHING), "more than 30, and there is room"
    line.read(OLD, "a")
    assert line.pollable() == set(EVERYTHING) - {LIVE}
    line.judge_all()
    assert line.pollable() == set(EVERYTHING)


def test_what_is_given_up_leaves_its_lane_and_counts_nowhere() -> None:
    line = Line()
    line.read(OLD, "a", "b", "c", "d")
    assert OLD not in line.pollable()
    line.pipeline.abandon([OLD])
    assert line.pollable() == set(EVERYTHING)
    assert line.value("records_total", "history") is None


def test_what_was_given_up_before_it_entered_counts_nowhere() -> None:
    line = Line()
    line.read(OLD, "a")
    gone = line.judge.waiting[0].context
    line.pipeline.abandon([OLD])
    line.pipeline.lanes.enter(line.offsets[OLD], [(gone, None)] * 4)
    assert line.pollable() == set(EVERYTHING)


def test_a_record_under_policies_of_two_lanes_counts_in_both() -> None:
    severe = Lane("severe", severities=("high",))
    both = policies(Lanes([severe]), grave=b"categories:\n  S1: {violates: true, severity: high}\n")
    line = Line(both)
    line.read(LIVE, "a", "b")
    assert sorted(lanes_of(line)) == ["rest", "rest", "severe", "severe"]
    line.pipeline.lanes.show(line.pipeline.clock.wall_ns())
    assert line.value("in_flight_records", "severe") == line.value("in_flight_records", "rest") == 2
    line.judge_all()
    line.pipeline.lanes.show(line.pipeline.clock.wall_ns())
    assert line.value("in_flight_records", "severe") == line.value("in_flight_records", "rest") == 0
    assert line.value("records_total", "severe") == line.value("records_total", "rest") == 2


def test_a_lane_by_a_field_reads_the_document() -> None:
    paid = Lane("paid", (Condition("field", (True,), "/meta/paid"),))
    line = Line(policies(Lanes([paid])))
    line.read(LIVE, "a", meta={"paid": True})
    line.read(LIVE, "a", meta={"paid": False})
    line.read(LIVE, "a")
    assert lanes_of(line) == ["paid", "rest", "rest"]


def test_lateness_counts_from_the_records_timestamp() -> None:
    line = Line()
    line.read(LIVE, "noisy")
    line.clock.advance(4)
    line.judge_all()
    assert line.value("late_records_total", "noisy") == 0
    line.read(LIVE, "noisy")
    line.clock.advance(6)
    line.judge_all()
    assert line.value("late_records_total", "noisy") == 1
    assert line.value("seconds_count", "noisy") == 2
    assert line.value("seconds_sum", "noisy") == pytest.approx(10)


def test_a_full_lane_shows_in_the_metrics() -> None:
    line = Line()
    line.read(OLD, *"abcd")
    line.pipeline.lanes.show(line.pipeline.clock.wall_ns())
    assert line.value("full", "history") == 1
    assert line.value("full", "rest") == 0
    assert line.value("in_flight_records", "history") == 4


def test_an_edit_gives_new_records_new_lanes_and_leaves_what_is_in_flight() -> None:
    line = Line()
    line.read(OLD, *"abcd")
    line.pipeline.switch(policies(Lanes([Lane("all", limits=LaneLimits(records=2))])))
    line.read(OLD, "e")
    assert lanes_of(line) == ["history"] * 4 + ["all"]
    assert line.pollable() == set(EVERYTHING), "a lane that is gone limits nothing"
    line.pipeline.switch(policies(Lanes()))
    line.read(OLD, "f")
    line.judge_all()
    assert line.pipeline.admission.records == 0
    assert line.pipeline.lanes._held["history"].records == 0
    assert line.pipeline.lanes._held["all"].tokens == 0


def test_the_first_lane_of_an_edit_works_on() -> None:
    line = Line(policies(Lanes()))
    line.read(LIVE, "a")
    line.pipeline.switch(policies())
    line.read(LIVE, "b")
    line.judge_all()
    assert line.value("records_total", "rest") == 1


def test_topics_of_backfill_lanes_alone_are_known() -> None:
    lanes = Line().pipeline.lanes
    assert lanes.only_backfill("old")
    assert not lanes.only_backfill("mixed")
    assert not Line(policies(Lanes())).pipeline.lanes.only_backfill("old")


def test_a_topic_without_a_policy_is_left_to_others() -> None:
    made = PolicySet.of(
        {"spam": make_policy("spam", b"S1: Advertising\nAnswer `VIOLATES` or `SAFE`.")},
        Routing(
            topics={"live": ("spam",)}, lanes=Lanes([Lane("all", limits=LaneLimits(records=1))])
        ),
    )
    line = Line(made)
    line.read(LIVE, "a", "b")
    # A decisions topic has no lane: no lane keeps it from being polled.
    assert line.pollable() == {OLD, MIXED, MIXED_TOO}


def test_no_full_lane_keeps_a_topic_of_another_kind_from_being_polled() -> None:
    """The default would route it, and all its records would be in the lane that is full."""
    made = policies(Lanes([Lane("all", limits=LaneLimits(records=1), backfill=True)]))
    line = Line(made, inputs=[LateInput("old", lambda _: None)])
    line.read(LIVE, "a")
    assert line.pollable() == {OLD}
    assert not line.pipeline.lanes.only_backfill("old")


def test_a_record_of_backfill_is_patient_and_others_are_not() -> None:
    line = Line()
    line.read(OLD, "a")
    line.read(LIVE, "a")
    live = line.pipeline.live
    assert live.is_patient(OLD)
    assert not live.is_patient(LIVE)
    assert not live.is_patient(MIXED)


def test_a_record_is_patient_if_one_of_its_policies_is_in_a_lane_of_backfill() -> None:
    severe = Lane("severe", severities=("high",))
    both = policies(
        Lanes([severe, Lane("later", backfill=True)]),
        grave=b"categories:\n  S1: {violates: true, severity: high}\n",
    )
    line = Line(both)
    line.read(LIVE, "a")
    assert sorted(lanes_of(line)) == ["later", "severe"]
    assert line.pipeline.live.is_patient(LIVE)
