"""Builds the outputs of a record: its verdicts, what goes with them, and its dead letter. It sends nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stream_guard.judging.reasoning_event import reasoning_record
from stream_guard.judging.verdict import build_verdict
from stream_guard.records.dead_letter_event import build_dead_letter, smaller_dead_letter
from stream_guard.records.review_item import encode_review_item, smaller_review_item
from stream_guard.records.verdict_event import VerdictEvents, smaller_verdict
from stream_guard.stream.in_flight import EVENT, REVIEW, Outgoing
from stream_guard.telemetry.trace_context import format_traceparent

if TYPE_CHECKING:
    from stream_guard.core.errors import RecordError
    from stream_guard.core.vocabulary import Mode
    from stream_guard.records.avro_output import AvroOutputs
    from stream_guard.settings import KafkaSettings
    from stream_guard.stream.in_flight import InFlightRecord, PostJudgement
    from stream_guard.stream.review import Reviews
    from stream_guard.stream.tracing.record_tracer import Tracing


class OutgoingBuilder:
    """Builds outputs.

    Args:
        kafka: the topics.
        tracing: decides which records get a sending span.
        reviews: chooses the verdicts that people review; None where no one does.

    Attributes:
        has_company: whether any verdict may have further outputs beside it; see :meth:`beside`.
        avro: writes verdicts and dead letters; None for JSON.
    """

    def __init__(
        self, kafka: KafkaSettings, tracing: Tracing, reviews: Reviews | None = None
    ) -> None:
        self.avro: AvroOutputs | None = None
        self._kafka = kafka
        self._tracing = tracing
        self._reviews = reviews
        self.has_company = kafka.reasoning_topic is not None or reviews is not None

    def verdict(
        self,
        in_flight: InFlightRecord,
        judgement: PostJudgement,
        events: VerdictEvents,
        now_ns: int,
    ) -> tuple[dict[str, Any], Outgoing]:
        """Return a judgement's verdict, and the output that carries it; the verdict's times end at ``now_ns``."""
        policy_id = judgement.request.policy.id
        mode: Mode = "live" if in_flight.modes is None else in_flight.modes[policy_id]
        verdict = build_verdict(
            in_flight.record,
            judgement,
            consumed_ms=in_flight.consumed_ns // 1_000_000,
            published_ms=now_ns // 1_000_000,
            route_mode=mode,
        )
        topic = self._shadow_topic if mode == "shadow" else self._kafka.verdict_topic
        traceparent = in_flight.trace.traceparent
        span = None
        if self._tracing.keeping is not None:
            severity = verdict["policy"]["severity"]
            self._tracing.keep_verdict(in_flight, judgement, now_ns, severity=severity)
            if in_flight.trace.span is not None:
                span = self._tracing.sending(in_flight.trace, topic, policy_id, now_ns)
                traceparent = format_traceparent(span.get_span_context())
        avro = None if self.avro is None else self.avro.verdicts[topic]
        value, headers = events.encode(verdict, traceparent, avro)
        label = (policy_id, verdict["decision"], verdict["provenance"]["tier"], mode)
        key = _key_of(in_flight, verdict)
        sending = Outgoing(topic, key, value, headers, in_flight, label, now_ns, span)
        sending.smaller = smaller_verdict if avro is None else avro.smaller_verdict
        return verdict, sending

    def event(
        self, in_flight: InFlightRecord, event: dict[str, Any], key: bytes, now_ns: int
    ) -> Outgoing:
        """Return the output that carries an event which changes a verdict; see ``records/verdict_changes.py``."""
        topic = self._kafka.verdict_topic
        avro = None if self.avro is None else self.avro.verdicts[topic]
        events = VerdictEvents(now_ns // 1_000_000, self._kafka.cloudevents_mode)
        value, headers = events.encode(event, in_flight.trace.traceparent, avro)
        return Outgoing(topic, key, value, headers, in_flight, EVENT, now_ns)

    def beside(
        self,
        sending: Outgoing,
        verdict: dict[str, Any],
        judgement: PostJudgement,
        now_ns: int,
    ) -> list[Outgoing]:
        """Return what is published beside a verdict, which ``sending`` carries; the record owes it as well."""
        in_flight = sending.origin
        company = []
        if judgement.thoughts and self._kafka.reasoning_topic is not None:
            company.append(self._reasoning(in_flight, verdict, judgement, now_ns))
        if self._reviews is not None:
            item = self._reviews.item(in_flight.record, verdict, judgement.request.post)
            if item is not None:
                value, headers = encode_review_item(item, in_flight.trace.traceparent)
                key = _key_of(in_flight, verdict)
                made = Outgoing(self._reviews.topic, key, value, headers, in_flight, REVIEW, now_ns)
                made.smaller = smaller_review_item
                company.append(made)
        for one in company:
            one.beside = sending
        in_flight.owed += len(company)
        return company

    def _reasoning(
        self,
        in_flight: InFlightRecord,
        verdict: dict[str, Any],
        judgement: PostJudgement,
        now_ns: int,
    ) -> Outgoing:
        """Return the output that carries a verdict's chain of thought."""
        topic = self._kafka.reasoning_topic
        assert topic is not None, "asked for only where there is one"
        value, headers = reasoning_record(verdict, judgement.thoughts, in_flight.trace.traceparent)
        key = _key_of(in_flight, verdict)
        return Outgoing(topic, key, value, headers, in_flight, None, now_ns)

    def dead_letter(
        self,
        in_flight: InFlightRecord,
        error: RecordError,
        judgement: PostJudgement | None,
        now_ns: int,
    ) -> Outgoing:
        """Return the dead letter of a record; ``judgement`` is None where the record could not be parsed."""
        topic = self._kafka.dead_letter_topic
        span = None
        if self._tracing.keeping is not None:
            span = self._tracing.failed(in_flight, error.reason, judgement, topic, now_ns)
        provenance = None if judgement is None else judgement.provenance
        letter = build_dead_letter(
            in_flight.record,
            error,
            kafka=self._kafka,
            failed_ms=now_ns // 1_000_000,
            policy_id=None if judgement is None else judgement.request.policy.id,
            attempts=1 if provenance is None else provenance.attempts,
        )
        avro = None if self.avro is None else self.avro.dead_letters
        if avro is not None:
            letter = avro.wrap(letter)
        sending = Outgoing(topic, *letter, in_flight, error.reason, now_ns, span)
        sending.smaller = smaller_dead_letter if avro is None else avro.smaller_dead_letter
        return sending

    @property
    def _shadow_topic(self) -> str:
        topic = self._kafka.shadow_topic
        assert topic is not None, "check_routes refuses shadows without a topic of their own"
        return topic


def _key_of(in_flight: InFlightRecord, verdict: dict[str, Any]) -> bytes:
    """Return the record's key, or the content's id where it has none: a compacted topic refuses records without."""
    key = in_flight.record.key
    return verdict["content"]["id"].encode() if key is None else key
