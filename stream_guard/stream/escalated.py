"""Reads escalations: as the deployment with the larger model, or as the first deployment, which watches a deadline.

Both are inputs of the pipeline besides the topics of posts. Of each record they say which post is to be judged by which
policy, or that nothing is, and what the record owes then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from stream_guard.core.errors import EscalationError, RecordError, SettledError
from stream_guard.core.kafka_types import Partition
from stream_guard.core.vocabulary import LATE
from stream_guard.records.escalation import parse_escalation

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_guard.core.vocabulary import Unjudged
    from stream_guard.policies.policy import Policy, PolicySet
    from stream_guard.records.escalation import Escalation
    from stream_guard.records.post import Post
    from stream_guard.settings import Settings
    from stream_guard.stream.in_flight import InFlightRecord, Outgoing
    from stream_guard.stream.outgoing import OutgoingBuilder

__all__ = ["EscalatedInput", "LateInput", "SideInput"]


class SideInput(Protocol):
    """A topic whose records are escalations.

    Attributes:
        topic: its name.
        waits: whether its records are read late on purpose, so that unread ones are no lag.
    """

    topic: str
    waits: bool

    def read(
        self, in_flight: InFlightRecord, policies: PolicySet
    ) -> tuple[Post, tuple[Policy, ...]]:
        """Return the post of a record, and its policy.

        Raises:
            SettledError: it is not judged here; :meth:`owed` says what it owes.
            RecordError: it becomes a dead letter.
        """

    def owed(
        self, in_flight: InFlightRecord, why: str, build: OutgoingBuilder, now_ns: int
    ) -> list[Outgoing]:
        """Return the outputs of a record that is not judged; ``why`` is the reason of its :class:`SettledError`."""


def _take(in_flight: InFlightRecord) -> Escalation:
    """Read a record's escalation, and keep it for its verdict."""
    escalation = in_flight.escalation = parse_escalation(in_flight.record)
    provenance = escalation.verdict["provenance"]
    if provenance["route_mode"] != "live":
        in_flight.modes = {escalation.verdict["policy"]["id"]: provenance["route_mode"]}
    return escalation


class EscalatedInput:
    """A :class:`SideInput` of the deployment with the larger model.

    Args:
        settings: the section ``cascade``, and the deployment's name.
        topic: ``cascade.escalated_topic``.
    """

    def __init__(self, settings: Settings, topic: str) -> None:
        self.topic = topic
        self.waits = False
        self._deployment = settings.deployment
        self._hops_max = settings.cascade.escalation_hops_max
        self._same = settings.cascade.escalated_policy == "same"

    def read(
        self, in_flight: InFlightRecord, policies: PolicySet
    ) -> tuple[Post, tuple[Policy, ...]]:
        """See :meth:`SideInput.read`."""
        escalation = _take(in_flight)
        policy = policies.policies.get(escalation.verdict["policy"]["id"])
        why = self._why_not(escalation, policy)
        if why is not None:
            raise SettledError(why)
        assert policy is not None, "a missing policy is a reason"
        assert escalation.post is not None, "so is a missing post"
        return escalation.post, (policy,)

    def _why_not(self, escalation: Escalation, policy: Policy | None) -> Unjudged | None:
        if escalation.has_passed(self._deployment) or len(escalation.hops) > self._hops_max:
            return "escalation_loop"
        if escalation.post is None:
            return "escalation_cut"
        if policy is None:
            return "escalation_policy_missing"
        if self._same and policy.sha256 != escalation.verdict["policy"]["sha256"]:
            return "escalation_policy_differs"
        return None

    def owed(
        self, in_flight: InFlightRecord, why: str, build: OutgoingBuilder, now_ns: int
    ) -> list[Outgoing]:
        """Return the verdict so far, as the final one."""
        return build.settled(in_flight, why, now_ns)


class LateInput:
    """A :class:`SideInput` of the deployment that withholds verdicts; its records come once their deadline is over.

    Args:
        topic: ``cascade.escalation_topic``.
        position: returns the next offset that the other deployment has to judge; None where it is unknown.
    """

    def __init__(self, topic: str, position: Callable[[Partition], int | None]) -> None:
        self.topic = topic
        self.waits = True
        self._position = position

    def read(
        self, in_flight: InFlightRecord, policies: PolicySet
    ) -> tuple[Post, tuple[Policy, ...]]:
        """Judge nothing. A malformed record is the other deployment's dead letter."""
        del policies
        try:
            _take(in_flight)
        except EscalationError as error:
            raise SettledError("escalation_malformed") from error
        except RecordError as error:
            raise SettledError("escalation_too_large") from error
        raise SettledError(LATE)

    def owed(
        self, in_flight: InFlightRecord, why: str, build: OutgoingBuilder, now_ns: int
    ) -> list[Outgoing]:
        """Return the withheld verdict if the other deployment has not passed the record."""
        del why
        record = in_flight.record
        position = self._position(Partition(record.topic, record.partition))
        if in_flight.escalation is None or (position is not None and position > record.offset):
            return []
        return build.settled(in_flight, LATE, now_ns)
