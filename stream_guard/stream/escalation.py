"""Builds the escalations that a record owes, in the place of its verdict or beside it. It sends nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from stream_guard.core.vocabulary import LATE
from stream_guard.judging.escalation import EscalationRule, is_better
from stream_guard.records.escalation import (
    build_escalation,
    encode_escalation,
    finalised,
    late_verdict,
    restated,
    smaller_escalation,
)
from stream_guard.stream.in_flight import ESCALATION, Outgoing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_guard.core.vocabulary import Mode
    from stream_guard.settings import Settings
    from stream_guard.stream.in_flight import InFlightRecord, PostJudgement
    from stream_guard.telemetry.metrics import Metrics

__all__ = ["DECIDED", "Escalations"]

DECIDED: Final = "decided"
"""The outcome of an escalated post on which the larger model's verdict is the final one."""


class Escalations:
    """What goes to another deployment, and what is made of posts that come from one.

    Args:
        settings: the section ``cascade``, and the deployment's name.
        metrics: where final verdicts are counted.

    Attributes:
        topic: where posts go; None where none do.
        withheld: whether the verdict of a post that goes there is not published.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        cascade = settings.cascade
        self.topic = cascade.escalation_topic
        self.withheld = cascade.escalation == "withhold"
        self._deployment = settings.deployment
        self._hops_max = cascade.escalation_hops_max
        self._rule = EscalationRule(cascade)
        self._metrics = metrics

    def reason(self, in_flight: InFlightRecord, judgement: PostJudgement, mode: Mode) -> str | None:
        """Return why the post goes to another deployment; None where it does not.

        A post never goes to a topic where it has been, and passes a limited number of deployments.
        """
        if self.topic is None or mode == "shadow":
            return None
        came = in_flight.escalation
        if came is not None and (
            len(came.hops) >= self._hops_max or any(hop["topic"] == self.topic for hop in came.hops)
        ):
            return None
        return self._rule.reason(judgement)

    def sending(
        self,
        in_flight: InFlightRecord,
        verdict: Mapping[str, Any],
        judgement: PostJudgement,
        reason: str,
        *,
        reach: float | None,
        key: bytes,
        traceparent: str,
        now_ns: int,
    ) -> Outgoing:
        """Return the output that carries a post and its verdict to the other deployment."""
        assert self.topic is not None, "reason() is None without a topic"
        came = in_flight.escalation
        escalation = build_escalation(
            verdict,
            judgement.request.post,
            deployment=self._deployment,
            topic=self.topic,
            reason=reason,
            withheld=self.withheld,
            hops=() if came is None else came.hops,
            reach=reach,
        )
        value, headers = encode_escalation(escalation, traceparent)
        label = f"{ESCALATION}{verdict['policy']['id']}/{reason}"
        made = Outgoing(self.topic, key, value, headers, in_flight, label, now_ns)
        made.smaller = smaller_escalation
        return made

    def final(
        self, in_flight: InFlightRecord, verdict: dict[str, Any], judgement: PostJudgement
    ) -> dict[str, Any]:
        """Return the final verdict on an escalated post: this deployment's own, or the verdict so far."""
        came = in_flight.escalation
        assert came is not None, "asked for escalated posts alone"
        if judgement.decided is not None:
            return verdict  # a person's verdict supersedes the machine's by itself
        if not is_better(judgement, came.verdict["decision"]):
            return self.settled(in_flight, "escalation_undecided", verdict["timing"]["published"])
        self._metrics.escalation_verdicts.labels(DECIDED).inc()
        return finalised(verdict, came.hops)

    def settled(self, in_flight: InFlightRecord, why: str, published_ms: int) -> dict[str, Any]:
        """Return the verdict so far as the final one; with :data:`LATE` as a provisional one.

        Args:
            in_flight: the record of the escalation.
            why: a word of :data:`~stream_guard.core.vocabulary.Unjudged`, or :data:`LATE`.
            published_ms: when the verdict is handed to the producer, Unix time in ms.
        """
        came = in_flight.escalation
        assert came is not None, "asked for escalated posts alone"
        self._metrics.escalation_verdicts.labels(why).inc()
        consumed_ms = in_flight.consumed_ns // 1_000_000
        if why == LATE:
            return late_verdict(came, consumed_ms=consumed_ms, published_ms=published_ms)
        return restated(
            came,
            why,
            deployment=self._deployment,
            consumed_ms=consumed_ms,
            published_ms=published_ms,
        )
