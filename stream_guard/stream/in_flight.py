"""A record in flight, and each output that it still owes. Pure.

A record has one :class:`InFlightRecord` from the poll to its acknowledgement. Each post under a policy has one
:class:`JudgeRequest` that points back at it. Each verdict, dead letter or chain of thought has one :class:`Outgoing`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from stream_guard.stream.admission import record_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stream_guard.core.kafka_types import Record
    from stream_guard.core.vocabulary import Mode
    from stream_guard.judging.contract import Judgement, JudgeRequest
    from stream_guard.records.escalation import Escalation
    from stream_guard.stream.offsets import PartitionOffsets
    from stream_guard.stream.tracing.record_trace import RecordTrace
    from stream_guard.telemetry.trace_context import Span

    PostRequest: TypeAlias = JudgeRequest["InFlightRecord"]
    PostJudgement: TypeAlias = Judgement["InFlightRecord"]
    Acknowledged: TypeAlias = Callable[[Sequence["Outgoing"]], None]
    Queued: TypeAlias = tuple["Outgoing", Acknowledged]
    Content: TypeAlias = tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]
    Smaller: TypeAlias = Callable[[bytes | None, bytes | None, list[tuple[str, bytes]]], Content]

REVIEW: Final = "review"
"""The label of a review item."""
EVENT: Final = "event"
"""The label of an output that is neither verdict nor dead letter: what a decision or a deletion makes."""

ESCALATION: Final = "escalation/"
"""How the label of an escalation begins; policy and reason follow, with a slash between."""


class RecordLanes(Protocol):
    """The lanes of a record's requests: nearly always one, which counts for itself."""

    def leave(self, in_flight: InFlightRecord, tokens: int, *, finished: bool) -> None:
        """Count a record out.

        Args:
            in_flight: which entered.
            tokens: estimated, of all its requests.
            finished: whether all its outputs are acknowledged; False where it was given up.
        """


class InFlightRecord:
    """One record that was read and is not finished.

    Attributes:
        record: as the source returned it.
        offsets: its partition's offsets, in the epoch in which it was read.
        consumed_ns: when it was read, Unix time in ns.
        trace: its trace context.
        owed: outputs that the broker has not acknowledged yet; the record is finished at zero.
        size_bytes: memory that the record takes, in bytes.
        tokens: estimated tokens of all its requests.
        abandoned: whether it was given up; then it never finishes in this epoch.
        modes: by policy id, how the policy judges it; None where all are live.
        requests: its requests to the judge.
        lanes: of its requests; None where no lanes are named.
        escalation: what another deployment said of the post; None for a record that is the post's own.
    """

    __slots__ = (
        "abandoned",
        "consumed_ns",
        "escalation",
        "lanes",
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
        self.requests: list[PostRequest] = []
        self.lanes: RecordLanes | None = None
        self.escalation: Escalation | None = None


class Outgoing:
    """One verdict, dead letter, chain of thought or review item, from when it is built until it is acknowledged.

    Attributes:
        topic, key, value, headers: what is produced.
        origin: the record that owes it.
        label: (policy, decision, tier, mode) of a verdict; the reason of a dead letter; :data:`REVIEW` for a
            review item; :data:`EVENT` for an event; :data:`ESCALATION` and more for an escalation; None for a chain of
            thought.
        built_ns: when it was built, Unix time in ns.
        span: the span of its sending, where the record is traced.
        beside: the verdict that a chain of thought, a review item or an escalation goes with; None for every other
            output.
        escalation: the escalation of a verdict that is provisional.
        dropped: whether it is acknowledged without being written, because its verdict was replaced.
        decisions_version: of the table of decisions when somebody last looked for one about this; 0 for never.
        smaller: returns a smaller key, value and headers for those given; None where there is no smaller form.
    """

    __slots__ = (
        "beside",
        "built_ns",
        "decisions_version",
        "dropped",
        "escalation",
        "headers",
        "key",
        "label",
        "origin",
        "smaller",
        "span",
        "topic",
        "value",
    )

    def __init__(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: list[tuple[str, bytes]],
        origin: InFlightRecord,
        label: tuple[str, str, str, str] | str | None = None,
        built_ns: int = 0,
        span: Span | None = None,
    ) -> None:
        self.topic = topic
        self.key = key
        self.value = value
        self.headers = headers
        self.origin = origin
        self.label = label
        self.built_ns = built_ns
        self.span = span
        self.smaller: Smaller | None = None
        self.beside: Outgoing | None = None
        self.escalation: Outgoing | None = None
        self.dropped = False
        self.decisions_version = 0

    def shrink(self) -> bool:
        """Take the smaller form, for a topic that refuses this one; return whether there was one. It works once."""
        if self.smaller is None:
            return False
        self.key, self.value, self.headers = self.smaller(self.key, self.value, self.headers)
        self.smaller = None
        return True


def acknowledge(items: Sequence[Queued]) -> None:
    """Call each output's callback, with lists: neighbours nearly always share theirs."""
    start = 0
    for end in range(1, len(items) + 1):
        if end == len(items) or items[end][1] is not items[start][1]:
            items[start][1]([sent for sent, _ in items[start:end]])
            start = end
