"""Records on their way: what each weighs, and what it still owes. Pure.

What it must never do: know how a verdict is made, or where it goes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_guard.stream.admission import record_bytes

if TYPE_CHECKING:
    from stream_guard.core.kafka_types import Record
    from stream_guard.core.vocabulary import Mode
    from stream_guard.judging.contract import JudgeRequest
    from stream_guard.stream.offsets import PartitionOffsets
    from stream_guard.stream.tracing.record_trace import RecordTrace
    from stream_guard.telemetry.trace_context import Span


class Work:
    """One record on its way: what it still owes, and what it weighs.

    ``modes`` says, by policy id, how each of its policies came to judge it; None where all are live.
    """

    __slots__ = (
        "abandoned",
        "consumed_ns",
        "modes",
        "offsets",
        "owed",
        "record",
        "requests",
        "size_bytes",
        "tokens",
        "trace",
    )

    def __init__(
        self, record: Record, offsets: PartitionOffsets, consumed_ns: int, trace: RecordTrace
    ) -> None:
        self.record = record
        self.offsets = offsets
        self.consumed_ns = consumed_ns
        self.trace = trace
        self.owed = 0
        self.size_bytes = record_bytes(record)
        self.tokens = 0
        self.abandoned = False
        self.modes: dict[str, Mode] | None = None
        self.requests: list[JudgeRequest] = []


class Owed:
    """One verdict or dead letter that a record owes, from when it is built until it is acknowledged."""

    __slots__ = ("built_ns", "label", "span", "work")

    def __init__(
        self,
        work: Work,
        label: tuple[str, str, str, str] | str | None,
        built_ns: int,
        span: Span | None = None,
    ) -> None:
        self.work = work
        self.span = span  # of its sending, where the record is traced
        # (policy, decision, tier, mode) of a verdict; the reason of a dead letter; None of reasoning
        self.label = label
        self.built_ns = built_ns
