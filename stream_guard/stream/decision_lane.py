"""Turns each decision of a person into its one event, for the pipeline. It sends nothing.

The decisions topic is one more input of the consumer group. So the member that owns a decision's partition makes the
event, and the event is covered by the same acknowledgements, transactions and positions as a verdict.

The topic is compacted by subject: of several decisions about the same it keeps the last that was written, which may not
be the standing one. So a decision that comes late, or that is refused, is followed by the standing one, written
again with the header ``sg_restated``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from stream_guard.core.errors import FutureDecisionError, UnknownRoleError, UnknownVerdictError
from stream_guard.judging.human.table import Unread, subject_hash
from stream_guard.records.decision import bare_value, parse_decision
from stream_guard.records.decision_form import glimpse, read_form
from stream_guard.records.escalation import escalated_ids
from stream_guard.records.verdict_changes import decided_event
from stream_guard.records.verdict_event import verdict_id
from stream_guard.stream.in_flight import EVENT, Outgoing

if TYPE_CHECKING:
    from stream_guard.core.kafka_types import Record
    from stream_guard.judging.human.table import DecisionTable
    from stream_guard.records.decision import Decision
    from stream_guard.records.decision_form import DecisionForm
    from stream_guard.settings import Settings
    from stream_guard.stream.in_flight import InFlightRecord
    from stream_guard.stream.outgoing import OutgoingBuilder
    from stream_guard.telemetry.metrics import Metrics

__all__ = ["RESTATED_HEADER", "DecisionLane", "DecisionReader"]

_log = structlog.get_logger(__name__)
RESTATED_HEADER: Final = "sg_restated"


class DecisionReader:
    """Reads decisions, and refuses those that no person can have made; by the record alone, so that all members agree.

    Args:
        settings: the sections ``cascade``, ``decisions`` and ``kafka``.
    """

    def __init__(self, settings: Settings) -> None:
        self.topic = settings.kafka.decision_topic
        self._own = frozenset(settings.kafka.own_topics)
        # Verdicts on escalated posts have the topics of another deployment.
        escalated = settings.cascade.escalated_topic is not None
        self._topics = frozenset(() if escalated else settings.kafka.topics)
        self._roles = frozenset(settings.decisions.roles)
        self._tolerance_ms = round(settings.decisions.future_tolerance_s * 1_000)

    def read(self, record: Record) -> Decision:
        """Return the decision in a record of the topic.

        Raises:
            RecordError: it is refused, or its value is null (TombstoneError).
        """
        decision = parse_decision(record.key, record.value, record.headers)
        self._check(decision, record.timestamp)
        return decision

    def skim(self, record: Record) -> Decision | DecisionForm:
        """Accept and refuse the same as :meth:`read`, faster; the result has the same fields.

        Raises:
            RecordError: as of :meth:`read`.
        """
        form = read_form(record.key, record.value, record.headers)
        if form is None:
            return self.read(record)
        self._check(form, record.timestamp)
        return form

    def unread(self, record: Record) -> Unread | None:
        """Return a record for :meth:`read_later`, and the hash of its subject; None where it must be read now."""
        seen = glimpse(record.value, record.headers)
        if (
            seen is None
            or record.key is None
            or seen.decided_by.role not in self._roles
            or (record.timestamp >= 0 and seen.decided_at > record.timestamp + self._tolerance_ms)
        ):
            return None
        content = seen.about.content
        subject = subject_hash(seen.about.policy.id, content.tenant, content.id)
        return Unread(record.key, record.timestamp, record.value, subject)

    def read_later(self, key: bytes, value: bytes, timestamp_ms: int) -> Decision | DecisionForm:
        """Return the decision in a record that :meth:`unread` has seen.

        Args:
            key: of the record.
            value: the JSON of its decision.
            timestamp_ms: of the record.

        Raises:
            RecordError: as of :meth:`read`.
        """
        form: Decision | DecisionForm = read_form(key, value) or parse_decision(key, value)
        self._check(form, timestamp_ms)
        return form

    def _check(self, decision: Decision | DecisionForm, timestamp_ms: int) -> None:
        """Raise RecordError where no person can have made a decision."""
        if decision.decided_by.role not in self._roles:
            raise UnknownRoleError(
                "the role of decided_by is not in decisions.roles; add it there, or change it"
            )
        if timestamp_ms >= 0 and decision.decided_at > timestamp_ms + self._tolerance_ms:
            raise FutureDecisionError(
                f"decided_at is {(decision.decided_at - timestamp_ms) / 1_000:.0f} s later than the record; "
                "decisions.future_tolerance_s allows less: check the writer's clock"
            )
        about = decision.about
        if about is not None and about.verdict_id is not None and about.source is not None:
            source, policy = about.source, about.policy
            made = verdict_id(
                source.topic, source.partition, source.offset, policy.id, policy.sha256
            )
            known = about.verdict_id == made or about.verdict_id in escalated_ids(made)
            foreign = source.topic in self._own or (
                self._topics and source.topic not in self._topics
            )
            if not known or foreign:
                raise UnknownVerdictError(
                    "verdict_id is not that of a verdict on this source by this policy; copy all of about from the "
                    "verdict (of a person's verdict: from the machine's verdict that it supersedes)"
                )


class DecisionLane:
    """Makes the events of decisions.

    Args:
        settings: the sections ``decisions`` and ``kafka``.
        table: the standing decisions; decisions are applied to it as they pass.
        metrics: where decisions are counted.
    """

    def __init__(
        self,
        settings: Settings,
        table: DecisionTable,
        metrics: Metrics,
    ) -> None:
        self.reader = DecisionReader(settings)
        self.topic = self.reader.topic
        self._table = table
        self._metrics = metrics

    def take(
        self, in_flight: InFlightRecord, build: OutgoingBuilder, now_ns: int
    ) -> list[Outgoing]:
        """Return what a record of the topic owes: its event, and the standing decision where it came late.

        Raises:
            RecordError: the decision is refused; :meth:`restate` says what the record owes besides its dead letter.
        """
        record = in_flight.record
        if record.value is None:
            self._table.forget(record.key)
            self._metrics.decisions.labels("forgotten").inc()
            return []
        decision = self.reader.read(record)
        about = decision.about
        if about is None:
            self._metrics.decisions.labels("breaker_reset").inc()
            return []  # each member reads the topic, and closes its own breakers
        applied = self._table.apply(decision, bare_value(record.value, record.headers))
        if any(name == RESTATED_HEADER for name, _ in record.headers):
            return []  # its event was made of the record that it repeats
        stands = applied != "late"
        self._metrics.decisions.labels(decision.kind if stands else "late").inc()
        event = decided_event(
            decision,
            about,
            record,
            stands=stands,
            consumed_ms=in_flight.consumed_ns // 1_000_000,
            published_ms=now_ns // 1_000_000,
        )
        _log.info(
            "decision", id=decision.id, kind=decision.kind, verdict=event["id"], stands=stands
        )
        key_text = about.content.id if about.source is None else about.source.key
        key = (about.content.id if key_text is None else key_text).encode("utf-8", "replace")
        sending = build.event(in_flight, event, key, now_ns)
        return [sending] if stands else [sending, *self.restate(in_flight, now_ns)]

    def restate(self, in_flight: InFlightRecord, now_ns: int) -> list[Outgoing]:
        """Return the standing decision of a record's key, to be written again; nothing if there is none."""
        record = in_flight.record
        value = self._table.standing(record.key)
        if value is None or value == record.value:
            return []
        headers = [("content-type", b"application/json"), (RESTATED_HEADER, b"1")]
        return [Outgoing(self.topic, record.key, value, headers, in_flight, EVENT, now_ns)]
