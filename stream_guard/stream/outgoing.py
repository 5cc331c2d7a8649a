"""A judgement as the records that carry it: its verdict, and where it is wanted its chain of thought.

What it must never do: send them, or say that anything was sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stream_guard.judging.reasoning_event import reasoning_record
from stream_guard.judging.verdict import build_verdict
from stream_guard.stream.in_flight import Owed
from stream_guard.stream.ports import Outgoing
from stream_guard.telemetry.trace_context import format_traceparent

if TYPE_CHECKING:
    from stream_guard.core.vocabulary import Mode
    from stream_guard.judging.contract import Judgement
    from stream_guard.records.verdict_event import VerdictEvents
    from stream_guard.settings import KafkaSettings
    from stream_guard.stream.in_flight import Work
    from stream_guard.stream.tracing.record_tracer import Tracing


class VerdictRecords:
    """Makes the records.

    Args:
        kafka: the topics.
        tracing: told of each verdict of a traced record.
    """

    def __init__(self, kafka: KafkaSettings, tracing: Tracing) -> None:
        self._kafka = kafka
        self._tracing = tracing

    def verdict(
        self, work: Work, judgement: Judgement, events: VerdictEvents, now_ns: int
    ) -> tuple[dict[str, Any], Outgoing]:
        """Return a judgement's verdict, and the record that carries it; the verdict's times end at ``now_ns``."""
        policy_id = judgement.request.policy.id
        mode: Mode = "live" if work.modes is None else work.modes[policy_id]
        verdict = build_verdict(
            work.record,
            judgement,
            consumed_ms=work.consumed_ns // 1_000_000,
            published_ms=now_ns // 1_000_000,
            route_mode=mode,
        )
        tier = verdict["provenance"]["tier"]
        owed = Owed(work, (policy_id, verdict["decision"], tier, mode), now_ns)
        topic = self._shadow_topic if mode == "shadow" else self._kafka.verdict_topic
        traceparent = work.trace.traceparent
        if self._tracing.keeping is not None:
            severity = verdict["policy"]["severity"]
            self._tracing.look(work, judgement, now_ns, severity=severity)
            if work.trace.span is not None:
                owed.span = self._tracing.sending(work.trace, topic, policy_id, now_ns)
                traceparent = format_traceparent(owed.span.get_span_context())
        value, headers = events.encode(verdict, traceparent)
        return verdict, Outgoing(topic, work.record.key, value, headers, owed, work)

    def reasoning(
        self, work: Work, verdict: dict[str, Any], judgement: Judgement, now_ns: int
    ) -> Outgoing:
        """Return the record of a verdict's chain of thought, which the record read owes as well."""
        topic = self._kafka.reasoning_topic
        assert topic is not None, "asked for only where there is one"
        value, headers = reasoning_record(verdict, judgement.thoughts, work.trace.traceparent)
        work.owed += 1
        return Outgoing(topic, work.record.key, value, headers, Owed(work, None, now_ns), work)

    @property
    def _shadow_topic(self) -> str:
        topic = self._kafka.shadow_topic
        assert topic is not None, "check_routes refuses shadows without a topic of their own"
        return topic
