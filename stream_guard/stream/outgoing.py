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
    from stream_guard.records.post import Post
    from stream_guard.settings import KafkaSettings
    from stream_guard.stream.escalation import Escalations
    from stream_guard.stream.in_flight import InFlightRecord, PostJudgement
    from stream_guard.stream.review import Reviews
    from stream_guard.stream.tracing.record_tracer import Tracing


class OutgoingBuilder:
    """Builds outputs.

    Args:
        kafka: the topics.
        tracing: decides which records get a sending span.
        reviews: chooses the verdicts that people review; None where no one does.
        escalations: chooses the posts that go to another deployment, and finishes those that come from one; None where
            there are none.

    Attributes:
        has_company: whether any verdict may have further outputs beside it; see :meth:`beside`.
        avro: writes verdicts and dead letters; None for JSON.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        tracing: Tracing,
        reviews: Reviews | None = None,
        escalations: Escalations | None = None,
    ) -> None:
        self.avro: AvroOutputs | None = None
        self._kafka = kafka
        self._tracing = tracing
        self._reviews = reviews
        self._escalations = escalations
        self.has_company = (
            kafka.reasoning_topic is not None or reviews is not None or escalations is not None
        )

    def verdict(
        self,
        in_flight: InFlightRecord,
        judgement: PostJudgement,
        events: VerdictEvents,
        now_ns: int,
    ) -> tuple[dict[str, Any], Outgoing]:
        """Return a judgement's verdict, and the output that carries it; the verdict's times end at ``now_ns``.

        The output of a verdict that is withheld is its escalation.
        """
        policy_id = judgement.request.policy.id
        mode: Mode = "live" if in_flight.modes is None else in_flight.modes[policy_id]
        came = in_flight.escalation
        verdict = build_verdict(
            in_flight.record if came is None else came.source,
            judgement,
            consumed_ms=in_flight.consumed_ns // 1_000_000,
            published_ms=now_ns // 1_000_000,
            route_mode=mode,
        )
        escalations, reason = self._escalations, None
        if escalations is not None:
            if came is not None:
                verdict = escalations.final(in_flight, verdict, judgement)
            reason = escalations.reason(in_flight, judgement, mode)
            if reason is not None and not escalations.withheld:
                verdict["provisional"] = True
        topic = self._shadow_topic if mode == "shadow" else self._kafka.verdict_topic
        traceparent = in_flight.trace.traceparent
        span = None
        if self._tracing.keeping is not None:
            severity = verdict["policy"]["severity"]
            self._tracing.keep_verdict(in_flight, judgement, now_ns, severity=severity)
            if in_flight.trace.span is not None:
                span = self._tracing.sending(in_flight.trace, topic, policy_id, now_ns)
                traceparent = format_traceparent(span.get_span_context())
        key = _key_of(in_flight, verdict)
        escalation = None
        if escalations is not None and reason is not None:
            escalation = escalations.sending(
                in_flight,
                verdict,
                judgement,
                reason,
                reach=self._reach(in_flight),
                key=key,
                traceparent=traceparent,
                now_ns=now_ns,
            )
            if escalations.withheld:
                escalation.span = span
                return verdict, escalation
        sending = self._carry(in_flight, verdict, events, traceparent, topic, key, now_ns)
        sending.span, sending.escalation = span, escalation
        return verdict, sending

    def _reach(self, in_flight: InFlightRecord) -> float | None:
        """Return how many people a post reaches: also where nobody reviews here, what an escalation brought."""
        if in_flight.escalation is not None:
            return in_flight.escalation.reach
        return None if self._reviews is None else self._reviews.reach(in_flight.record)

    # Over six arguments: what a record of a verdict is made of.
    def _carry(
        self,
        in_flight: InFlightRecord,
        verdict: dict[str, Any],
        events: VerdictEvents,
        traceparent: str,
        topic: str,
        key: bytes,
        now_ns: int,
    ) -> Outgoing:
        """Return the output that carries a verdict."""
        avro = None if self.avro is None else self.avro.verdicts[topic]
        value, headers = events.encode(verdict, traceparent, avro)
        made = verdict["provenance"]
        label = (verdict["policy"]["id"], verdict["decision"], made["tier"], made["route_mode"])
        sending = Outgoing(topic, key, value, headers, in_flight, label, now_ns)
        sending.smaller = smaller_verdict if avro is None else avro.smaller_verdict
        return sending

    def settled(self, in_flight: InFlightRecord, why: str, now_ns: int) -> list[Outgoing]:
        """Return the outputs that make the verdict so far on an escalated post the final one.

        Args:
            in_flight: the record of the escalation.
            why: :data:`LATE` for a withheld verdict that becomes provisional; else a word of :data:`.Unjudged`.
            now_ns: Unix time in ns.
        """
        assert self._escalations is not None, "no escalation is read without them"
        came = in_flight.escalation
        assert came is not None, "asked for escalated posts alone"
        verdict = self._escalations.settled(in_flight, why, now_ns // 1_000_000)
        events = VerdictEvents(now_ns // 1_000_000, self._kafka.cloudevents_mode)
        topic = self._kafka.verdict_topic
        traceparent, key = in_flight.trace.traceparent, _key_of(in_flight, verdict)
        sending = self._carry(in_flight, verdict, events, traceparent, topic, key, now_ns)
        item = None if came.post is None else self._item(sending, verdict, came.post, now_ns)
        if item is None:
            return [sending]
        item.beside = sending
        return [sending, item]

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
        """Return what is published beside a verdict, which ``sending`` carries; the record owes it as well.

        People review what the last deployment leaves, so an escalated post has no item.
        """
        in_flight = sending.origin
        company = []
        escalates = sending.escalation is not None or not isinstance(sending.label, tuple)
        if sending.escalation is not None:
            company.append(sending.escalation)
        if judgement.thoughts and self._kafka.reasoning_topic is not None:
            company.append(self._reasoning(in_flight, verdict, judgement, now_ns))
        if not escalates:
            item = self._item(sending, verdict, judgement.request.post, now_ns)
            if item is not None:
                company.append(item)
        for one in company:
            one.beside = sending
        in_flight.owed += len(company)
        return company

    def _item(
        self, sending: Outgoing, verdict: dict[str, Any], post: Post, now_ns: int
    ) -> Outgoing | None:
        """Return the output that carries a verdict's review item, where people review it."""
        in_flight = sending.origin
        if self._reviews is None:
            return None
        item = self._reviews.item(in_flight.record, verdict, post, in_flight.escalation)
        if item is None:
            return None
        value, headers = encode_review_item(item, in_flight.trace.traceparent)
        key = _key_of(in_flight, verdict)
        made = Outgoing(self._reviews.topic, key, value, headers, in_flight, REVIEW, now_ns)
        made.smaller = smaller_review_item
        return made

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
