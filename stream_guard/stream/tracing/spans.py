"""Each kind of span that a record has, by OpenTelemetry's messaging conventions: names, kinds, attributes.

No attribute comes from a post or from a record's key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.trace import Link, Span, Tracer

    from stream_guard.core.kafka_types import Record

NOBODY: Final = Context()
"""The context of spans without a parent, instead of the current context."""


def under(span: Span) -> Context:
    """Return the context of a span's children."""
    return trace.set_span_in_context(span, NOBODY)


def receive(
    tracer: Tracer, topic: str, partition: int, *, count: int, group: str, start_ns: int
) -> Span:
    """Open the span of one poll's records of one partition; ``count`` is how many."""
    return tracer.start_span(
        f"receive {topic}",
        context=NOBODY,
        kind=SpanKind.CLIENT,
        start_time=start_ns,
        attributes={
            **_messaging("receive", topic),
            "messaging.destination.partition.id": str(partition),
            "messaging.consumer.group.name": group,
            "messaging.batch.message_count": count,
        },
    )


def process(
    tracer: Tracer,
    record: Record,
    context: Context,
    *,
    links: Sequence[Link],
    group: str,
    start_ns: int,
) -> Span:
    """Open the span of one record, from when it is read until nothing of it is owed any more."""
    return tracer.start_span(
        f"process {record.topic}",
        context=context,
        kind=SpanKind.CONSUMER,
        links=links,
        start_time=start_ns,
        attributes={
            **_messaging("process", record.topic),
            "messaging.destination.partition.id": str(record.partition),
            "messaging.kafka.offset": record.offset,
            "messaging.consumer.group.name": group,
        },
    )


def send(tracer: Tracer, parent: Span, topic: str, policy_id: str, start_ns: int) -> Span:
    """Open the span of one verdict or dead letter, until the broker acknowledges it."""
    return tracer.start_span(
        f"send {topic}",
        context=under(parent),
        kind=SpanKind.PRODUCER,
        start_time=start_ns,
        attributes={**_messaging("send", topic), "stream_guard.policy.id": policy_id},
    )


def step(tracer: Tracer, parent: Span, name: str, policy_id: str, start_ns: int) -> Span:
    """Open the span of a step of ours: ``wait`` or ``judge``."""
    return tracer.start_span(
        name,
        context=under(parent),
        start_time=start_ns,
        attributes={"stream_guard.policy.id": policy_id},
    )


def batch(tracer: Tracer, policy_id: str, count: int, start_ns: int) -> Span:
    """Open the span of a micro-batch; ``count`` is how many posts it has."""
    return tracer.start_span(
        f"batch {policy_id}",
        context=NOBODY,
        start_time=start_ns,
        attributes={"stream_guard.policy.id": policy_id, "messaging.batch.message_count": count},
    )


def _messaging(operation: str, topic: str) -> dict[str, str]:
    return {
        "messaging.system": "kafka",
        "messaging.operation.type": operation,
        "messaging.operation.name": operation,
        "messaging.destination.name": topic,
    }
