"""Checks what became of people's decisions: one event each, and no machine against a person. Pure.

A member that has not read a decision yet cannot follow it. A broker that is away may keep it from reading, and a member
that is frozen reads nothing. So a machine's verdict, or an outdated person's, counts as wrong only from 15 s after the
decision was appended, or after the last such fault.

What it must never do: take a verdict for an event because it has the right shape. An event has the id of its decision.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Final

from stream_guard.records.verdict_changes import superseding_id
from tests.soak import schedule

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tests.soak.facts import Decided, Fault, History, Outcome

BEHIND_MS_MAX: Final = 15_000
"""A request to a broker (10 s), and metadata of the time before (5 s), as the soak's settings have them."""
REPLACING: Final = frozenset({"review", "appeal"})
"""The kinds of decisions that answer posts."""
_BLINDING: Final = frozenset(
    {
        *schedule.BROKER_KINDS,
        *schedule.NETWORK_KINDS,
        schedule.CONSUMER_FREEZE,
        schedule.DISK_FULL,
        schedule.RETENTION,
        schedule.REVOKED,
        schedule.EXPIRED,
    }
)


class People:
    """The decisions of one history, and what is to be said about them.

    Args:
        history: all that was observed.
    """

    def __init__(self, history: History) -> None:
        self._history = history
        self._by_event = {superseding_id(d.id, d.verdict_id): d for d in history.decided}
        self._by_id = {decision.id: decision for decision in history.decided}
        self._by_subject: dict[tuple[str, str], list[Decided]] = defaultdict(list)
        for decision in sorted(history.decided, key=lambda one: (one.partition, one.offset)):
            self._by_subject[decision.policy, decision.name].append(decision)
        self._deadlines = {
            id_: deadline_ms(decision.appended_ms, history.faults)
            for id_, decision in self._by_id.items()
        }

    def is_event(self, outcome: Outcome) -> bool:
        """Return whether an outcome is the one event of a decision, and not an answer to a later post."""
        decision = self._by_event.get(outcome.id)
        return decision is not None and outcome.decision_id == decision.id

    def may_answer(self, outcome: Outcome) -> bool:
        """Return whether the decision that an outcome follows is about its post and policy."""
        decision = self._by_id.get(outcome.decision_id)
        return decision is not None and (decision.policy, decision.name) == (
            outcome.policy,
            outcome.name,
        )

    def without_event(self, events: Iterable[Outcome]) -> list[Decided]:
        """Return the decisions whose event never came."""
        came = {event.id for event in events}
        return [decision for id_, decision in self._by_event.items() if id_ not in came]

    def copied(self, events: Iterable[Outcome]) -> list[Outcome]:
        """Return the events beyond one for each record of a decision."""
        owed = Counter(decision.id for decision in self._history.decided)
        return [event for event in events if not _take(owed, event.decision_id)]

    def resurrected(self, events: Iterable[Outcome]) -> list[Outcome]:
        """Return the events that change a verdict although a decision of a higher rank was before theirs in the log."""
        return [event for event in events if event.changes and self._outranked(event)]

    def _outranked(self, event: Outcome) -> bool:
        mine = self._by_event[event.id]
        earlier = (
            other
            for other in self._by_subject[mine.policy, mine.name]
            if (other.partition, other.offset) < (mine.partition, mine.offset)
        )
        return any(_rank(other) > _rank(mine) for other in earlier)

    def overruled(self, verdicts: Iterable[Outcome]) -> list[Outcome]:
        """Return verdicts on posts for which a standing decision was known, and that do not follow it."""
        return [
            verdict
            for verdict in verdicts
            if (standing := self._known(verdict)) is not None
            and standing.kind in REPLACING
            and self._follows_less(verdict, standing)
        ]

    def _known(self, verdict: Outcome) -> Decided | None:
        """Return the standing one of the decisions that every member had to know when a verdict was written."""
        known = [
            decision
            for decision in self._by_subject.get((verdict.policy, verdict.name), ())
            if verdict.appended_ms > self._deadlines[decision.id]
        ]
        return max(known, key=_rank, default=None)

    def _follows_less(self, verdict: Outcome, standing: Decided) -> bool:
        decision = self._by_id.get(verdict.decision_id)
        return decision is None or _rank(decision) < _rank(standing)


def deadline_ms(appended_ms: int, faults: Sequence[Fault]) -> int:
    """Return until when a member may be without a decision, Unix time in ms."""
    until = appended_ms + BEHIND_MS_MAX
    for fault in sorted(faults, key=lambda one: one.begin_ms):
        if fault.kind in _BLINDING and appended_ms <= fault.end_ms and fault.begin_ms <= until:
            until = max(until, fault.end_ms + BEHIND_MS_MAX)
    return until


def _rank(decision: Decided) -> tuple[int, str]:
    return decision.decided_at, decision.id


def _take(owed: Counter[str], decision_id: str) -> bool:
    owed[decision_id] -= 1
    return owed[decision_id] >= 0


def split(outcomes: Iterable[Outcome], people: People) -> tuple[list[Outcome], list[Outcome]]:
    """Return the outcomes of posts, and the events of decisions."""
    sides: Mapping[bool, list[Outcome]] = {False: [], True: []}
    for outcome in outcomes:
        sides[people.is_event(outcome)].append(outcome)
    return sides[False], sides[True]
