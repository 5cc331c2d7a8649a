"""Looks for a person's decision once more, at the last moment at which a machine's verdict can be answered.

At least once: when the broker has acknowledged a verdict and before its position may be committed. A decision that came
meanwhile makes one more verdict, which the record owes as well. Exactly once: directly before the transaction. The
person's answer is written in the verdict's place, and nothing is written of what goes with the verdict: no review item
and no chain of thought.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stream_guard.judging.human.judge import answer
from stream_guard.records.verdict_changes import HUMAN
from stream_guard.records.verdict_event import VerdictEvents
from stream_guard.stream.outgoing import OutgoingBuilder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.core.clock import Clock
    from stream_guard.judging.human.table import DecisionTable
    from stream_guard.settings import KafkaSettings
    from stream_guard.stream.in_flight import Acknowledged, Outgoing, PostRequest, Queued
    from stream_guard.stream.ports import Publisher
    from stream_guard.stream.tracing.record_tracer import Tracing

__all__ = ["LateAnswers", "PersonWins"]


class LateAnswers:
    """Finds the verdicts that a person has decided about since they were built, and builds the person's answers.

    Args:
        table: the standing decisions.
        kafka: the topics.
        tracing: decides which records get a sending span.
        clock: the time of the answers.

    Attributes:
        table: the standing decisions.
        build: makes the answers; for Avro, its ``avro`` is set before the first record.
    """

    def __init__(
        self, table: DecisionTable, kafka: KafkaSettings, tracing: Tracing, clock: Clock
    ) -> None:
        self.table = table
        self._mode = kafka.cloudevents_mode
        self.build = OutgoingBuilder(kafka, tracing)
        self._clock = clock

    def of(self, sent: Outgoing) -> Outgoing | None:
        """Return the person's answer to a live verdict of the machine; None if there is none."""
        label = sent.label
        if not self.table.version or not isinstance(label, tuple):
            return None
        policy_id, _, tier, mode = label
        if tier == HUMAN or mode == "shadow" or sent.origin.abandoned:
            return None
        request = _request(sent, policy_id)
        if request is None:
            return None
        now_ns = self._clock.wall_ns()
        decision = self.table.find(request.post, request.policy, now_ns // 1_000_000)
        if decision is None:
            return None
        events = VerdictEvents(now_ns // 1_000_000, self._mode)
        return self.build.verdict(sent.origin, answer(request, decision, now_ns), events, now_ns)[1]

    def replace(self, items: list[Queued]) -> list[Queued]:
        """Return outputs with the person's answers in the place of verdicts, for one transaction.

        What goes with a replaced verdict is marked as dropped.
        """
        if not self.table.version:
            return items
        answers = {sent: late for sent, _ in items if (late := self.of(sent)) is not None}
        if not answers:
            return items
        for sent, _ in items:
            sent.dropped = sent.beside in answers
        return [(answers.get(sent, sent), acknowledged) for sent, acknowledged in items]


def _request(sent: Outgoing, policy_id: str) -> PostRequest | None:
    return next((one for one in sent.origin.requests if one.policy.id == policy_id), None)


class PersonWins:
    """A :class:`stream_guard.stream.ports.Publisher` that adds the person's answer behind an acknowledged verdict.

    Args:
        inner: the publisher.
        late: finds the answers.
    """

    def __init__(self, inner: Publisher, late: LateAnswers) -> None:
        self._inner = inner
        self._late = late
        self._table = late.table
        # One for each callback, so that a batch is acknowledged in one list.
        self._callbacks: dict[Any, Acknowledged] = {}

    async def start(self) -> None:
        """Start the inner publisher."""
        await self._inner.start()

    def publish(self, outgoing: Sequence[Outgoing], acknowledged: Acknowledged) -> None:
        """Publish; what is acknowledged is looked at before ``acknowledged`` hears of it."""
        callback = self._callbacks.get(acknowledged)
        if callback is None:

            def callback(sent: Sequence[Outgoing]) -> None:
                find, version = self._late.of, self._table.version
                answers = [
                    late
                    for one in sent
                    if one.decisions_version != version and (late := find(one)) is not None
                ]
                for late in answers:
                    late.origin.owed += (
                        1  # so that no position passes the record before its answer is written
                    )
                if answers:
                    self._inner.publish(answers, acknowledged)
                acknowledged(sent)

            self._callbacks[acknowledged] = callback
        # The judge has just looked for decisions, so there is none but of a later version.
        version = self._table.version
        for sending in outgoing:
            sending.decisions_version = version
        self._inner.publish(outgoing, callback)

    async def flush(self) -> None:
        """Return once everything queued is acknowledged."""
        await self._inner.flush()

    async def wait_failed(self) -> BaseException:
        """Return the error of the inner publisher."""
        return await self._inner.wait_failed()

    async def stop(self) -> None:
        """Stop the inner publisher."""
        await self._inner.stop()
