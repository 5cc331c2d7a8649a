"""Traces: a span per sampled record, and a ``traceparent`` for every verdict, sampled or not.

Sampling is decided here and not by the SDK, because a record that is not sampled must cost next to nothing:
its incoming ``traceparent`` is handed on as it is, or a new unsampled one is made.
Formats: W3C Trace Context (level 1); span names and attributes: OpenTelemetry's messaging conventions.
"""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING, Final

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
)

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

    from stream_guard.judge import Judgement, JudgeRequest
    from stream_guard.ports import Record
    from stream_guard.settings import TelemetrySettings

# Of zeros alone, neither id is valid.
_TRACEPARENT: Final = re.compile(
    rb"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})"
)
_random = random.Random()  # noqa: S311 - ids, not secrets


class RecordTrace:
    """What is known of one record's trace: the header to hand on and, when sampled, its span."""

    __slots__ = ("span", "traceparent")

    def __init__(self, traceparent: str, span: Span | None) -> None:
        self.traceparent = traceparent
        self.span = span


def format_traceparent(context: SpanContext) -> str:
    """Return the W3C header of a span's context."""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"


class Tracing:
    """Makes the spans of records.

    Args:
        settings: endpoint, ratio and service name.
        exporter: where spans go, instead of the endpoint's; for tests.
        group: the consumer group, for the spans' attributes.
    """

    def __init__(
        self, settings: TelemetrySettings, *, group: str, exporter: SpanExporter | None = None
    ) -> None:
        self._ratio = settings.trace_ratio
        self._group = group
        self._tracer: trace.Tracer | None = None
        self._provider: TracerProvider | None = None
        exporter = exporter or _exporter(settings)
        if exporter is not None:
            self._provider = TracerProvider(
                resource=Resource.create({"service.name": settings.service_name})
            )
            self._provider.add_span_processor(BatchSpanProcessor(exporter))
            self._tracer = self._provider.get_tracer("stream_guard")

    def begin(self, record: Record, consumed_ns: int) -> RecordTrace:
        """Decide whether a record is traced, and open its ``process`` span where it is."""
        parent: SpanContext | None = None
        for name, value in record.headers:
            if name == "traceparent":
                match = _TRACEPARENT.fullmatch(value or b"")
                if match is None:
                    break
                sampled = int(match[3], 16) & 1
                if self._tracer is None or not sampled:
                    return RecordTrace(value.decode("ascii"), None)
                parent = SpanContext(
                    int(match[1], 16),
                    int(match[2], 16),
                    is_remote=True,
                    trace_flags=TraceFlags(TraceFlags.SAMPLED),
                )
                break
        if self._tracer is None or (parent is None and _random.random() >= self._ratio):
            bits = _random.getrandbits(192) | 1 << 64 | 1  # neither id may be zero
            ids = f"{bits:048x}"
            return RecordTrace(f"00-{ids[:32]}-{ids[32:]}-00", None)
        return self._open(self._tracer, record, parent, consumed_ns)

    def _open(
        self, tracer: trace.Tracer, record: Record, parent: SpanContext | None, consumed_ns: int
    ) -> RecordTrace:
        context = None if parent is None else trace.set_span_in_context(NonRecordingSpan(parent))
        span = tracer.start_span(
            f"process {record.topic}",
            context=context,
            kind=SpanKind.CONSUMER,
            links=() if parent is None else (Link(parent),),
            start_time=consumed_ns,
            attributes={
                "messaging.system": "kafka",
                "messaging.operation.type": "process",
                "messaging.operation.name": "process",
                "messaging.destination.name": record.topic,
                "messaging.destination.partition.id": str(record.partition),
                "messaging.kafka.offset": record.offset,
                "messaging.consumer.group.name": self._group,
            },
        )
        return RecordTrace(format_traceparent(span.get_span_context()), span)

    def child(
        self, parent: Span, name: str, policy_id: str, start_ns: int, end_ns: int | None = None
    ) -> Span:
        """Open a child span, and close it where its end is given."""
        assert self._tracer is not None, "there is a span, so there is a tracer"
        span = self._tracer.start_span(
            name,
            context=trace.set_span_in_context(parent),
            kind=SpanKind.PRODUCER if name.startswith("publish") else SpanKind.INTERNAL,
            start_time=start_ns,
            attributes={"stream_guard.policy.id": policy_id},
        )
        if end_ns is not None:
            span.end(end_ns)
        return span

    def judging(self, parent: Span, request: JudgeRequest, consumed_ns: int, now_ns: int) -> Span:
        """Close the ``wait`` span and open the ``judge`` span, whose context goes to the engine."""
        self.child(parent, "wait", request.policy.id, consumed_ns, now_ns)
        span = self.child(parent, "judge", request.policy.id, now_ns)
        request.trace_headers = {"traceparent": format_traceparent(span.get_span_context())}
        return span

    def judged(self, span: Span, judgement: Judgement) -> None:
        """Close the ``judge`` span with what came of it: GenAI conventions, and no content."""
        provenance, answer = judgement.provenance, judgement.answer
        if provenance is not None:
            span.set_attributes(
                {
                    "gen_ai.request.model": provenance.model,
                    "gen_ai.usage.input_tokens": provenance.prompt_tokens,
                    "gen_ai.usage.output_tokens": provenance.output_tokens,
                    "gen_ai.response.finish_reasons": [provenance.finish_reason],
                    "stream_guard.tier": provenance.tier,
                }
            )
        if answer is not None:
            span.set_attribute("stream_guard.decision", answer.decision)
        if judgement.error is not None:
            span.set_status(Status(StatusCode.ERROR, judgement.error.reason))
        span.end(judgement.finished_ns or None)

    def close(self) -> None:
        """Send what is left, and stop."""
        if self._provider is not None:
            self._provider.shutdown()


def _exporter(settings: TelemetrySettings) -> SpanExporter | None:
    if settings.otlp_endpoint is None:
        return None
    if settings.otlp_protocol == "http":
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (
            OTLPSpanExporter as HttpExporter,
        )

        return HttpExporter(endpoint=settings.otlp_endpoint.rstrip("/") + "/v1/traces")
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (
        OTLPSpanExporter as GrpcExporter,
    )

    return GrpcExporter(
        endpoint=settings.otlp_endpoint, insecure=settings.otlp_endpoint.startswith("http://")
    )
