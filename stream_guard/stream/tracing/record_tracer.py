"""Traces: a span per traced record, and a ``traceparent`` for every verdict, traced or not.

Sampling is decided here and not by the SDK, because a record that is not sampled must cost next to nothing: its
incoming ``traceparent`` is handed on as it is, or a new unsampled one is made. What turns out worth keeping is traced
all the same, from the times that are known of it anyway (:meth:`Tracing.look`).
Formats: W3C Trace Context (level 1); span names and attributes: OpenTelemetry's messaging conventions.
No span holds text of a post, unless ``telemetry.trace_content`` asks for it.
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    Status,
    StatusCode,
    TraceFlags,
)

from stream_guard.stream.tracing import spans
from stream_guard.stream.tracing.keeping import Keeping
from stream_guard.stream.tracing.record_trace import Receipt, RecordTrace
from stream_guard.telemetry import generations
from stream_guard.telemetry.export import make_exporter
from stream_guard.telemetry.given_ids import GivenIds
from stream_guard.telemetry.run_context import set_run_context
from stream_guard.telemetry.trace_context import format_traceparent, read_traceparent

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from opentelemetry.sdk.trace.export import SpanExporter

    from stream_guard.core.kafka_types import Record
    from stream_guard.judging.contract import Judgement, JudgeRequest
    from stream_guard.settings import TelemetrySettings
    from stream_guard.stream.tracing.record_trace import Traced
    from stream_guard.telemetry.metrics import Metrics

_random = random.Random()  # noqa: S311 - ids, not secrets


class Tracing:
    """Makes the spans of records.

    Args:
        settings: endpoint, ratio, what is always kept, and service name.
        exporter: where spans go, instead of the endpoint's; for tests.
        group: the consumer group, for the spans' attributes.
        severe: severities of which a violation is always kept.
        metrics: counts what is traced, and why.
    """

    def __init__(
        self,
        settings: TelemetrySettings,
        *,
        group: str,
        exporter: SpanExporter | None = None,
        severe: tuple[str, ...] = (),
        metrics: Metrics | None = None,
    ) -> None:
        self._ratio = settings.trace_ratio
        self._group = group
        self._metrics = metrics
        self._content = settings.trace_content
        self._tracer: trace.Tracer | None = None
        self._provider: TracerProvider | None = None
        self._ids = GivenIds()
        exporter = exporter or make_exporter(settings)
        if exporter is not None:
            # The sampler is not for our spans, but for those of vLLM, which come with a parent's flag.
            self._provider = TracerProvider(
                sampler=ParentBased(ALWAYS_ON),
                id_generator=self._ids,
                resource=Resource.create({"service.name": settings.service_name}),
            )
            self._provider.add_span_processor(BatchSpanProcessor(exporter))
            self._tracer = self._provider.get_tracer("stream_guard")
        self.keeping = Keeping(settings, severe) if exporter is not None else None

    # The process

    def lend(self) -> None:
        """Have vLLM's spans, which go to whatever provider is there first, leave by ours."""
        if self._provider is not None and isinstance(
            trace.get_tracer_provider(), trace.ProxyTracerProvider
        ):
            trace.set_tracer_provider(self._provider)
            # vLLM sets its own later, which changes nothing, and logs an error.
            logging.getLogger("opentelemetry.trace").addFilter(_is_no_override)

    @contextlib.contextmanager
    def run(self) -> Iterator[None]:
        """While entered, what is logged belongs to one trace, that of this run of the process."""
        if self._tracer is not None:
            span = self._tracer.start_span("run", context=spans.NOBODY)
        else:
            ids = _random.getrandbits(128) | 1, _random.getrandbits(64) | 1
            span = NonRecordingSpan(SpanContext(*ids, is_remote=False))
        set_run_context(span.get_span_context())
        try:
            with trace.use_span(
                span, end_on_exit=True, record_exception=False, set_status_on_exception=False
            ):
                yield
        finally:
            set_run_context(None)

    def close(self, timeout_s: float | None = None) -> None:
        """Send what is left, and stop; a collector that does not answer by the deadline, in s, gets nothing more."""
        if self._provider is None:
            return
        # A thread that the end of the process does not wait for: the exporter tries for longer than we may.
        ending = threading.Thread(target=self._provider.shutdown, name="last spans", daemon=True)
        ending.start()
        ending.join(timeout_s)

    # What comes in

    def receive(self, topic: str, partition: int, count: int, polled_ns: int) -> Receipt:
        """Begin a poll's records of one partition."""
        return Receipt(topic, partition, count, polled_ns)

    def begin(
        self, record: Record, consumed_ns: int, receipt: Receipt | None = None
    ) -> RecordTrace:
        """Decide whether a record is traced, and open its ``process`` span where it is."""
        known = read_traceparent(record)
        if known is not None:
            header, parent = known
            if self._tracer is None or not parent.trace_flags.sampled:
                return RecordTrace(header, None)
            return self._open(self._tracer, record, parent, consumed_ns, receipt)
        if self._tracer is None or _random.random() >= self._ratio:
            bits = _random.getrandbits(192) | 1 << 64 | 1  # neither id may be zero
            ids = f"{bits:048x}"
            return RecordTrace(f"00-{ids[:32]}-{ids[32:]}-00", None)
        return self._open(self._tracer, record, None, consumed_ns, receipt)

    def _open(
        self,
        tracer: trace.Tracer,
        record: Record,
        parent: SpanContext | None,
        consumed_ns: int,
        receipt: Receipt | None,
    ) -> RecordTrace:
        self._count("ratio" if parent is None else "parent")
        links = [] if parent is None else [Link(parent)]
        if receipt is not None:
            if receipt.span is None:
                receipt.span = spans.receive(
                    tracer,
                    receipt.topic,
                    receipt.partition,
                    count=receipt.count,
                    group=self._group,
                    start_ns=receipt.polled_ns,
                )
            links.append(Link(receipt.span.get_span_context()))
        span = self._process(tracer, record, parent, consumed_ns, links)
        if receipt is not None and receipt.span is not None:
            receipt.span.add_link(span.get_span_context() if parent is None else parent)
        return RecordTrace(format_traceparent(span.get_span_context()), span)

    def _process(
        self,
        tracer: trace.Tracer,
        record: Record,
        parent: SpanContext | None,
        consumed_ns: int,
        links: list[Link],
    ) -> Span:
        context = spans.NOBODY if parent is None else spans.under(NonRecordingSpan(parent))
        return spans.process(
            tracer, record, context, links=links, group=self._group, start_ns=consumed_ns
        )

    # What is kept after all

    def keep_verdict(
        self, in_flight: Traced, judgement: Judgement, now_ns: int, *, severity: str | None
    ) -> None:
        """Trace the record of a verdict that is worth keeping, and add the spans of how it was judged.

        Args:
            in_flight: the record.
            judgement: with an answer.
            now_ns: Unix time in ns.
            severity: of the answer's category; None for none.
        """
        answer, known = judgement.answer, in_flight.trace
        assert answer is not None, "a judgement with an error has no verdict"
        assert self.keeping is not None, "asked only where there is somewhere to send spans"
        if known.span is None:
            why = self.keeping.verdict(answer.decision, severity, now_ns - in_flight.consumed_ns)
            if why is None or not self._keep(in_flight, why, now_ns):
                return
        if judgement.request.span is None and known.span is not None:
            self._judged_late(known.span, judgement, in_flight.consumed_ns)

    def failed(
        self, in_flight: Traced, reason: str, judgement: Judgement | None, topic: str, now_ns: int
    ) -> Span | None:
        """Keep a record that becomes a dead letter, and open the span that sends it, where it is traced.

        Args:
            in_flight: the record.
            reason: of its error.
            judgement: the failed one; None if it failed before any.
            topic: of dead letters.
            now_ns: Unix time in ns.
        """
        known = in_flight.trace
        assert self.keeping is not None, "asked only where there is somewhere to send spans"
        if known.span is None:
            why = self.keeping.dead_letter()
            if why is None or not self._keep(in_flight, why, now_ns):
                return None
        if known.span is None:
            return None
        if judgement is not None and judgement.request.span is None:
            self._judged_late(known.span, judgement, in_flight.consumed_ns)
        known.span.set_attribute("error.type", reason)
        known.span.set_status(Status(StatusCode.ERROR, reason))
        policy_id = "" if judgement is None else judgement.request.policy.id
        return self.sending(known, topic, policy_id, now_ns)

    def sent(
        self, in_flight: Traced, span: Span | None, now_ns: int, *, topic: str, built_ns: int
    ) -> None:
        """Close the span of an acknowledged output; keep its record if that took long."""
        assert self.keeping is not None, "asked only where there is somewhere to send spans"
        if span is None and in_flight.trace.span is None:
            why = self.keeping.age(now_ns - in_flight.consumed_ns)
            if why is not None and self._keep(in_flight, why, now_ns):
                span = self.sending(in_flight.trace, topic, "", built_ns)
        if span is not None and span.is_recording():
            span.end(now_ns)

    def abandoned(self, known: RecordTrace, requests: Sequence[JudgeRequest]) -> None:
        """Close every span of a record that is given up."""
        if known.span is None:
            return
        for span in (*(request.span for request in requests), *known.sends):
            if span is not None and span.is_recording():
                span.end()
        known.span.set_attribute("stream_guard.abandoned", value=True)
        known.span.end()

    def _keep(self, in_flight: Traced, why: str, now_ns: int) -> bool:
        """Trace a record that was not sampled, from when it was read on; False where the limit forbids it."""
        known, record, consumed_ns = in_flight.trace, in_flight.record, in_flight.consumed_ns
        if self._tracer is None or self.keeping is None:
            return False
        if not self.keeping.allows(now_ns):
            self._count("refused")
            return False
        came = read_traceparent(record)
        if came is None:  # the ids that verdicts may have carried on already
            self._ids.given = int(known.traceparent[3:35], 16), int(known.traceparent[36:52], 16)
            parent = None
        else:
            context = came[1]
            sampled = TraceFlags(TraceFlags.SAMPLED)
            parent = SpanContext(
                context.trace_id, context.span_id, is_remote=True, trace_flags=sampled
            )
        links = [] if parent is None else [Link(parent)]
        try:
            known.span = self._process(self._tracer, record, parent, consumed_ns, links)
        finally:
            self._ids.given = None
        known.span.set_attribute("stream_guard.kept", why)
        known.traceparent = format_traceparent(known.span.get_span_context())
        self._count(why)
        return True

    def _count(self, why: str) -> None:
        if self._metrics is not None:
            self._metrics.traces.labels(why).inc()

    # What is done with it

    def batch(self, policy_id: str, count: int, now_ns: int) -> Span:
        """Open the span of a micro-batch of ``count`` posts, one of which is traced."""
        assert self._tracer is not None, "a post is traced, so there is a tracer"
        return spans.batch(self._tracer, policy_id, count, now_ns)

    def hand_over(self, traced: Sequence[JudgeRequest[Any]], count: int, now_ns: int) -> None:
        """Open the spans of requests that are handed to the judge in one batch of ``count``."""
        batch = self.batch(traced[0].policy.id, count, now_ns)
        for request in traced:
            in_flight = request.context
            assert in_flight.trace.span is not None, "only traced requests"
            request.span = self.judging(
                in_flight.trace.span, request, in_flight.consumed_ns, now_ns, batch
            )
        batch.end(now_ns)

    def judging(
        self, parent: Span, request: JudgeRequest, consumed_ns: int, now_ns: int, batch: Span
    ) -> Span:
        """Close the ``wait`` span and open the ``judge`` span, each linked with the batch that it went in."""
        assert self._tracer is not None, "there is a span, so there is a tracer"
        policy_id = request.policy.id
        spans.step(self._tracer, parent, "wait", policy_id, consumed_ns).end(now_ns)
        span = spans.step(self._tracer, parent, "judge", policy_id, now_ns)
        request.trace_headers = {"traceparent": format_traceparent(span.get_span_context())}
        span.add_link(batch.get_span_context())
        batch.add_link(span.get_span_context())
        return span

    def generation(self, parent: Span, call: generations.Call) -> Span:
        """Open the span of one call of the engine, whose context goes with it."""
        assert self._tracer is not None, "there is a span, so there is a tracer"
        return generations.begin(self._tracer, spans.under(parent), call, content=self._content)

    def generated(self, span: Span, result: generations.Result) -> None:
        """Close it with what came of it."""
        generations.end(span, result, content=self._content)

    def judged(self, span: Span, judgement: Judgement) -> None:
        """Close the ``judge`` span with what came of it, and no content."""
        provenance, answer = judgement.provenance, judgement.answer
        if provenance is not None:
            span.set_attributes(
                {"stream_guard.tier": provenance.tier, "stream_guard.attempts": provenance.attempts}
            )
        if answer is not None:
            span.set_attribute("stream_guard.decision", answer.decision)
        if judgement.error is not None:
            span.set_attribute("error.type", judgement.error.reason)
            span.set_status(Status(StatusCode.ERROR, judgement.error.reason))
        span.end(judgement.finished_ns or None)

    def _judged_late(self, parent: Span, judgement: Judgement, consumed_ns: int) -> None:
        """Make the spans of a judgement that is over: its record was not traced when it began."""
        assert self._tracer is not None, "there is a span, so there is a tracer"
        policy_id, provenance = judgement.request.policy.id, judgement.provenance
        started_ns = judgement.started_ns or consumed_ns
        spans.step(self._tracer, parent, "wait", policy_id, consumed_ns).end(started_ns)
        span = spans.step(self._tracer, parent, "judge", policy_id, started_ns)
        if provenance is not None and provenance.output_tokens:
            call = generations.Call(provenance.model, started_ns=started_ns)
            generation = self.generation(span, call)
            self.generated(
                generation, generations.Result.from_spent(provenance, judgement.finished_ns)
            )
        self.judged(span, judgement)

    def sending(self, known: RecordTrace, topic: str, policy_id: str, now_ns: int) -> Span:
        """Open the span that sends a verdict or a dead letter; its context is what the next reader goes on from."""
        assert self._tracer is not None, "there is a span, so there is a tracer"
        assert known.span is not None, "asked of traced records only"
        span = spans.send(self._tracer, known.span, topic, policy_id, now_ns)
        known.sends = (*known.sends, span)
        return span


def _is_no_override(line: logging.LogRecord) -> bool:
    return "Overriding of current TracerProvider" not in line.getMessage()
