"""What is known of a record's trace, and of the poll that brought it.

A poll of which no record is traced gets no span.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from stream_guard.core.kafka_types import Record


class Traced(Protocol):
    """The slice of a record in flight that tracing reads."""

    @property
    def record(self) -> Record:
        """As it was read."""

    @property
    def trace(self) -> RecordTrace:
        """What is known of its trace."""

    @property
    def consumed_ns(self) -> int:
        """When it was read, Unix time in ns."""


class RecordTrace:
    """What is known of one record's trace.

    Attributes:
        traceparent: the header to pass on, unless the sending of the verdict has a span of its own.
        span: the ``process`` span; None where the record is not traced.
        sends: the open spans of what is being sent.
    """

    __slots__ = ("sends", "span", "traceparent")

    def __init__(self, traceparent: str, span: Span | None) -> None:
        self.traceparent = traceparent
        self.span = span
        self.sends: tuple[Span, ...] = ()


class Receipt:
    """The records of one partition that one poll brought: a ``receive`` span, once one of them is traced."""

    __slots__ = ("count", "partition", "polled_ns", "span", "topic")

    def __init__(self, topic: str, partition: int, count: int, polled_ns: int) -> None:
        self.topic = topic
        self.partition = partition
        self.count = count
        self.polled_ns = polled_ns
        self.span: Span | None = None

    def end(self) -> None:
        """Close the span, if there is one."""
        if self.span is not None:
            self.span.end(self.polled_ns)
