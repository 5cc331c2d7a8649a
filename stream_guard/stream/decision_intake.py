"""Takes records of the decisions topic for the pipeline: publishes the event that each owes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from stream_guard.core.errors import RecordError
from stream_guard.stream.in_flight import InFlightRecord

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from stream_guard.core.clock import Clock
    from stream_guard.core.kafka_types import Record
    from stream_guard.stream.admission import Admission
    from stream_guard.stream.dead_letter_gate import DeadLetterGate
    from stream_guard.stream.dead_letter_limits import Stage
    from stream_guard.stream.decision_lane import DecisionLane
    from stream_guard.stream.in_flight import Outgoing
    from stream_guard.stream.live_records import LiveRecords
    from stream_guard.stream.offsets import PartitionOffsets
    from stream_guard.stream.outgoing import OutgoingBuilder
    from stream_guard.stream.tracing.record_tracer import Tracing
    from stream_guard.telemetry.metrics import Metrics

__all__ = ["Desk", "accept_decisions"]


class Desk(Protocol):
    """The pipeline, as far as records need it that are no posts; see :class:`.pipeline.Pipeline`."""

    admission: Admission
    build: OutgoingBuilder
    clock: Clock
    dead_letters: DeadLetterGate
    live: LiveRecords
    metrics: Metrics
    progress: asyncio.Event
    tracing: Tracing

    def fail(
        self,
        in_flight: InFlightRecord,
        stage: Stage,
        error: RecordError,
        now_s: float,
        now_ns: int,
    ) -> bool:
        """Make a record's dead letter; where a limit forbids it, give the record up and return False."""

    def publish(
        self, in_flight: InFlightRecord, owed: list[Outgoing], now_ns: int, *, besides: int = 0
    ) -> None:
        """Publish what a record owes, which may be nothing; ``besides`` counts what else it owes."""

    def write_dead_letters(self, now_s: float) -> None:
        """Publish the dead letters that are due."""


def accept_decisions(
    desk: Desk, lane: DecisionLane, offsets: PartitionOffsets, records: Sequence[Record]
) -> None:
    """Take records of the decisions topic, in offset order."""
    now_s, now_ns = desk.clock.monotonic_s(), desk.clock.wall_ns()
    live = desk.live.setdefault(offsets.partition, {})
    receipt = desk.tracing.receive(*offsets.partition, len(records), now_ns)
    for record in records:
        trace = desk.tracing.begin(record, now_ns, receipt)
        in_flight = InFlightRecord(record, offsets, now_ns, trace)
        live[record.offset] = in_flight
        desk.admission.enter(in_flight.size_bytes, 0)
        try:
            owed = lane.take(in_flight, desk.build, now_ns)
        except RecordError as error:
            owed = lane.restate(in_flight, now_ns)
            in_flight.owed = 1 + len(owed)
            if not desk.fail(in_flight, "parse", error, now_s, now_ns):
                break
            desk.publish(in_flight, owed, now_ns, besides=1)
        else:
            desk.dead_letters.passed("parse", 1, now_s)
            desk.publish(in_flight, owed, now_ns)
    receipt.end()
    desk.metrics.records.labels(offsets.partition.topic).inc(len(records))
    desk.write_dead_letters(now_s)
    desk.progress.set()
