"""Compares what went in with what came out, and with what was committed when. Pure.

Theory of operation. The input topic's log, as it is at the end, says what is owed: every record of it that is not of
an aborted transaction owes one verdict per policy, or a dead letter. The logs of verdicts and dead letters say what was
paid, and when: brokers stamp each record as they append it. The group's own log has every commit, stamped by the
coordinator, and not just those that somebody happened to look at. A record is *done* at the time of the last thing that
it owed, and a commit past a record that was not done is premature. A record that retention deleted before it was done
is overtaken: it is done by its deletion, and the service must say that it has not read it. Positions never go back,
within a generation of the group or over several. What a reader got meanwhile must be what is committed, all of it, each
once and in order. Brokers of one machine share its clock; what that jumped is allowed for.

A deletion owes a retraction. What people decided is checked in ``people_checker``: a verdict that follows a decision
has an id of its own.

What it must never do: ask the program, or forgive anything that is not named here.
"""

from __future__ import annotations

import bisect
import itertools
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

from stream_guard.records.verdict_changes import ALL_POLICIES, superseding_id
from stream_guard.records.verdict_event import verdict_id
from tests.soak.consumer_faults import CLOCK_JUMPS_S
from tests.soak.people_checker import People, split
from tests.soak.schedule import (
    BREAKER,
    BROKER_KINDS,
    CLOCK,
    CONSUMER_FREEZE,
    NETWORK_CUT,
    POISON,
    REFUSING_KINDS,
)
from tests.soak.stalls import stalls_by_fault
from tests.soak.takeover import TAKEOVER_S_MAX, takeovers

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tests.soak.facts import Commit, Decided, Exit, Fault, History, Input, Outcome, Read

STALL_S_MAX: Final = 60.0
_NEVER: Final = 1 << 62
_OWED: Final[Mapping[str, str]] = {
    "post": "verdict",
    "poison": "dead_letter",
    "delete": "retraction",
}
_NO_ACTIONS: Final = frozenset({"", "none", "review"})
_EXAMPLES: Final = 3
# A refused member ends once a write of its has failed, and may be about to start again as the fault ends.
_REFUSED_MS: Final = 20_000
_START_MS: Final = 15_000
_BROKER_EXIT: Final = 3
# Codes that docs give a meaning; 137 and 143 are SIGKILL and SIGTERM as a shell says them.
_NAMED_EXITS: Final = frozenset({0, 3, 4, 5})

Place: TypeAlias = tuple[int, int]  # partition and offset of an input


@dataclass
class Findings:
    """What the checker found; each list names records, commits or outcomes, for the report.

    Attributes:
        lost: (partition, offset, policy) that was owed and never came.
        unfounded: posts that brokers acknowledged and do not have: the cluster's own fault.
        phantom: outcomes of records that are not in the input.
        wrong_id: verdicts whose id is not that of their record and policy.
        crossed: outcomes that carry another post's id, or other bytes than their record's.
        undue: verdicts of what cannot be judged, and dead letters of sound posts.
        aborted_read: outcomes of records of aborted transactions.
        premature: commits past a record that was not done.
        rewound: commits below an earlier one of their partition.
        silent: overtaken records of which the service never said so.
        unread: outcomes that are committed, and that the reader did not get.
        dirty: what the reader got that is not committed, or no outcome.
        disordered: what the reader got again, or after a later one of its partition.
        repeated: outcomes beyond the first that a reader with ``read_committed`` gets.
        repeated_by: how many of those which kind of fault most likely caused.
        aborted_outcomes: outcomes that only a reader with ``read_uncommitted`` gets.
        stall_s: per fault, the longest time for which a partition with work finished nothing.
        takeover_s: per fault, the longest takeover; None if none began with work.
        acted: ids of committed verdicts that recommend an action, in any copy.
        overrun: those of them above what the limit allows.
        events: ids of the events that decisions made.
        answered: verdicts on posts that a person's decision gave.
        undecided: decisions whose event never came.
        copied: events of decisions beyond the first.
        resurrected: events of decisions that came late and change a verdict all the same.
        overruled: verdicts against a person's decision that every member knew.
        crashed: exits with a code that the documentation gives no meaning.
        own_exits: exits that nobody asked for, while no broker refused the member.
        refused_exits: exits with code 3 while the brokers refused the member, or none answered its start, as the
            documentation says.
    """

    inputs: int = 0
    poison: int = 0
    aborted_inputs: int = 0
    verdicts: int = 0
    dead_letters: int = 0
    commits: int = 0
    aborted_outcomes: int = 0
    overtaken: int = 0
    refused_exits: int = 0
    deletes: int = 0
    retractions: int = 0
    decisions: int = 0
    events: int = 0
    answered: int = 0
    lost: list[tuple[int, int, str]] = field(default_factory=list)
    unfounded: list[object] = field(default_factory=list)
    phantom: list[Outcome] = field(default_factory=list)
    wrong_id: list[Outcome] = field(default_factory=list)
    crossed: list[Outcome] = field(default_factory=list)
    undue: list[Outcome] = field(default_factory=list)
    aborted_read: list[Outcome] = field(default_factory=list)
    premature: list[Commit] = field(default_factory=list)
    rewound: list[Commit] = field(default_factory=list)
    silent: list[Input] = field(default_factory=list)
    unread: list[Outcome] = field(default_factory=list)
    dirty: list[Read] = field(default_factory=list)
    disordered: list[Read] = field(default_factory=list)
    repeated: list[Outcome] = field(default_factory=list)
    repeated_by: Counter[str] = field(default_factory=Counter)
    stall_s: list[float] = field(default_factory=list)
    takeover_s: list[float | None] = field(default_factory=list)
    acted: list[str] = field(default_factory=list)
    overrun: list[str] = field(default_factory=list)
    undecided: list[Decided] = field(default_factory=list)
    copied: list[Outcome] = field(default_factory=list)
    resurrected: list[Outcome] = field(default_factory=list)
    overruled: list[Outcome] = field(default_factory=list)
    crashed: list[object] = field(default_factory=list)
    own_exits: list[Exit] = field(default_factory=list)

    @property
    def stall_s_max(self) -> float:
        """The longest of all, in s."""
        return max(self.stall_s, default=0.0)


def check(history: History) -> Findings:
    """Return what is to be said about a history."""
    inputs = {(fact.partition, fact.offset): fact for fact in history.inputs}
    people = People(history)
    plain, events = split(history.outcomes, people)
    found = Findings(
        inputs=sum(not fact.aborted for fact in history.inputs),
        poison=sum(fact.kind == "poison" and not fact.aborted for fact in history.inputs),
        deletes=sum(fact.kind == "delete" and not fact.aborted for fact in history.inputs),
        aborted_inputs=sum(fact.aborted for fact in history.inputs),
        verdicts=sum(o.kind == "verdict" and o.committed for o in plain),
        retractions=sum(o.kind == "retraction" and o.committed for o in plain),
        dead_letters=sum(o.kind == "dead_letter" and o.committed for o in plain),
        commits=len(history.commits),
        aborted_outcomes=sum(not outcome.committed for outcome in history.outcomes),
        crashed=[e for e in history.exits if not e.asked and e.code not in _NAMED_EXITS],
        unfounded=[a for a in history.acknowledged if (a.partition, a.offset) not in inputs],
    )
    for outcome in plain:
        _judge_outcome(outcome, inputs.get((outcome.partition, outcome.offset)), history, found)
    readable = [outcome for outcome in plain if outcome.committed]
    _find_decided(people, readable, [event for event in events if event.committed], found)
    found.crossed.extend(o for o in plain if o.decision_id and not people.may_answer(o))
    done_ms = _done(history, inputs.values(), readable, found)
    _find_overtaken(history, inputs, done_ms, found)
    _find_repeats(history, readable, found)
    _find_commits(history, done_ms, found)
    if history.watched:
        _find_reads(history, (o for o in history.outcomes if o.committed), found)
    _find_exits(history, found)
    _find_actions(history, found)
    arrived_ms = {place: inputs[place].appended_ms for place in done_ms}
    found.stall_s = stalls_by_fault(history, arrived_ms, done_ms)
    found.takeover_s = takeovers(history, arrived_ms, done_ms)
    return found


def objections(
    found: Findings,
    history: History,
    *,
    stall_s_max: float = STALL_S_MAX,
    takeover_s_max: float = TAKEOVER_S_MAX,
) -> list[str]:
    """Return what must not be, a sentence each; empty where the promise was kept."""
    said = [
        f"{what}: {len(facts)}, such as {', '.join(map(str, facts[:_EXAMPLES]))}"
        for what, facts in (
            ("owed and never delivered", found.lost),
            ("acknowledged by the brokers, and not in their log", found.unfounded),
            ("outcomes of no record", found.phantom),
            ("verdicts with another id than theirs", found.wrong_id),
            ("outcomes with another record's content", found.crossed),
            ("outcomes of a kind that their record cannot have", found.undue),
            ("outcomes of records of aborted transactions", found.aborted_read),
            ("premature commits", found.premature),
            ("commits that went back", found.rewound),
            ("overtaken by retention, and not logged", found.silent),
            ("committed, and never read", found.unread),
            ("read, and not committed", found.dirty),
            ("read again, or out of order", found.disordered),
            ("actions above their limit", found.overrun),
            ("decisions without an event", found.undecided),
            ("late decisions that count", found.resurrected),
            ("verdicts against a person's decision", found.overruled),
            ("exits with a code without a meaning", found.crashed),
            ("exits of its own", found.own_exits),
        )
        if facts
    ]
    if history.mode == "exactly_once" and found.repeated:
        said.append(
            f"repeated to a reader with read_committed: {len(found.repeated)}, such as {found.repeated[0]}"
        )
    if history.mode == "exactly_once" and found.copied:
        said.append(f"events repeated: {len(found.copied)}, such as {found.copied[0]}")
    said.extend(
        f"no progress for {stall_s:.1f} s after {fault.kind} of {fault.target}"
        for fault, stall_s in zip(history.faults, found.stall_s, strict=True)
        if stall_s > stall_s_max
    )
    said.extend(
        f"a takeover of {taken_s:.1f} s after {fault.kind} of {fault.target}"
        for fault, taken_s in zip(history.faults, found.takeover_s, strict=True)
        if taken_s is not None and taken_s > takeover_s_max
    )
    if not history.commits and found.inputs:
        said.append("no commit was observed at all, so nothing is known about them")
    return said


def _judge_outcome(
    outcome: Outcome, source: Input | None, history: History, found: Findings
) -> None:
    """Look at one outcome for itself; those that no reader of committed records gets count as well."""
    if source is None or outcome.topic != history.topic:
        found.phantom.append(outcome)
        return
    if source.aborted:
        found.aborted_read.append(outcome)
    if outcome.kind != "dead_letter" and outcome.id != _right_id(outcome, history):
        found.wrong_id.append(outcome)
    if outcome.kind != _OWED[source.kind]:
        # The real engine may have to give up on a post that it cannot judge.
        gave_up = (outcome.kind, source.kind) == ("dead_letter", "post")
        if not gave_up or history.engine == "scripted":
            found.undue.append(outcome)
    elif outcome.name != source.name:
        found.crossed.append(outcome)


def _right_id(outcome: Outcome, history: History) -> str:
    """Return the id that a verdict or a retraction must have."""
    place = history.topic, outcome.partition, outcome.offset
    if outcome.kind == "retraction":
        return verdict_id(*place, ALL_POLICIES, outcome.sha256)
    right = verdict_id(*place, outcome.policy, history.policies.get(outcome.policy, ""))
    return superseding_id(outcome.decision_id, right) if outcome.decision_id else right


def _done(
    history: History, inputs: Iterable[Input], readable: Sequence[Outcome], found: Findings
) -> dict[Place, int]:
    """Return when each record that owes something was done; note what never came."""
    came: dict[tuple[int, int, str], int] = {}
    for outcome in readable:
        key = outcome.partition, outcome.offset, outcome.policy
        came[key] = min(came.get(key, _NEVER), outcome.appended_ms)
    done: dict[Place, int] = {}
    for fact in inputs:
        if fact.aborted:
            continue
        partition, offset = place = fact.partition, fact.offset
        whole = came.get((partition, offset, ""), _NEVER)
        owed = _owed(fact, history)
        times = [min(whole, came.get((partition, offset, policy), _NEVER)) for policy in owed]
        done[place] = max(times)
        if not fact.deleted_ms:
            found.lost.extend(
                (partition, offset, policy)
                for policy, time in zip(owed, times, strict=True)
                if time == _NEVER
            )
    return done


def _owed(fact: Input, history: History) -> Iterable[str]:
    """Return the policies of the outcomes that a record owes."""
    if fact.kind == "post":
        return history.policies
    return (ALL_POLICIES,) if fact.kind == "delete" else ("",)


def _find_decided(
    people: People, readable: Sequence[Outcome], events: Sequence[Outcome], found: Findings
) -> None:
    found.events = len({event.id for event in events})
    found.answered = sum(bool(outcome.decision_id) for outcome in readable)
    found.undecided = people.without_event(events)
    found.decisions = len(found.undecided) + found.events
    found.copied = people.copied(events)
    found.resurrected = people.resurrected(events)
    found.overruled = people.overruled(o for o in readable if o.kind == "verdict")


def _find_overtaken(
    history: History,
    inputs: Mapping[Place, Input],
    done_ms: dict[Place, int],
    found: Findings,
) -> None:
    """Count the records that retention deleted before they were done, and have each done by its deletion."""
    for (partition, offset), time in list(done_ms.items()):
        fact = inputs[partition, offset]
        if not fact.deleted_ms or time <= fact.deleted_ms:
            continue
        done_ms[partition, offset] = fact.deleted_ms
        if time < _NEVER:
            continue  # it was read before, and judged after
        found.overtaken += 1
        told = (e for e in history.expired if e.partition == partition)
        if not any(one.begin <= offset < one.end for one in told):
            found.silent.append(fact)


def _find_reads(history: History, readable: Iterable[Outcome], found: Findings) -> None:
    """Compare what a reader got meanwhile with what is committed at the end."""
    committed = {(o.log_topic, o.log_partition, o.log_offset): o for o in readable}
    seen: set[tuple[str, int, int]] = set()
    last: dict[tuple[str, int], int] = {}
    for read in history.reads:
        key = read.topic, read.partition, read.offset
        if key not in committed:
            found.dirty.append(read)
        if read.offset <= last.get(key[:2], -1):
            found.disordered.append(read)
        last[key[:2]] = max(read.offset, last.get(key[:2], -1))
        seen.add(key)
    found.unread.extend(outcome for key, outcome in committed.items() if key not in seen)


def _find_exits(history: History, found: Findings) -> None:
    ended_before: dict[str, int] = {}
    for ended in sorted(history.exits, key=lambda each: each.at_ms):
        begun_ms = ended_before.get(ended.member, -_NEVER)
        ended_before[ended.member] = ended.at_ms
        if ended.asked:
            continue
        # A start that no broker answers ends with the same code; a member that runs waits for longer. To a member that
        # was frozen meanwhile, the brokers gave no answer in time. A start takes longer while a broker is away.
        frozen = [
            f
            for f in history.faults
            if f.kind == CONSUMER_FREEZE and ended.member in f.target.split(", ")
        ]
        slowing = [f for f in history.faults if f in frozen or f.kind in BROKER_KINDS]
        longer_ms = sum(f.end_ms - f.begin_ms for f in slowing if f.begin_ms >= begun_ms)
        starts = ended.at_ms - begun_ms < _START_MS + longer_ms
        kinds = (*REFUSING_KINDS, NETWORK_CUT) if starts else REFUSING_KINDS
        refusing = [f for f in history.faults if f.kind in kinds] + (frozen if starts else [])
        refused = any(f.begin_ms <= ended.at_ms <= f.end_ms + _REFUSED_MS for f in refusing)
        if refused and ended.code == _BROKER_EXIT:
            found.refused_exits += 1
        elif ended.code in _NAMED_EXITS:
            found.own_exits.append(ended)


def _find_actions(history: History, found: Findings) -> None:
    """Count the verdicts with an action: also those that only a reader of uncommitted records gets."""
    # What a person decided has no limit.
    acting = {
        o.id: None for o in history.outcomes if o.action not in _NO_ACTIONS and not o.decision_id
    }
    found.acted = list(acting)
    if not history.actions_max or not history.faults:
        return
    # A reset begins a count; so does each hour, and a clock that jumps into one.
    counts = 1 + sum(fault.kind == BREAKER for fault in history.faults)
    counts += len(CLOCK_JUMPS_S) * sum(fault.kind == CLOCK for fault in history.faults)
    counts += (history.ended_ms - history.faults[0].begin_ms) // 3_600_000
    found.overrun = found.acted[counts * history.actions_max :]


def _find_repeats(history: History, readable: Iterable[Outcome], found: Findings) -> None:
    first_ms: dict[tuple[int, int, str, str], int] = {}
    for outcome in sorted(readable, key=lambda outcome: outcome.appended_ms):
        # In at-least-once mode, a person's answer may follow the machine's verdict on the same record.
        key = outcome.partition, outcome.offset, outcome.policy, outcome.kind + outcome.decision_id
        if key in first_ms:
            found.repeated.append(outcome)
            found.repeated_by[_cause(history.faults, first_ms[key], outcome.appended_ms)] += 1
        first_ms.setdefault(key, outcome.appended_ms)


def _cause(faults: Sequence[Fault], first_ms: int, again_ms: int) -> str:
    """Return the kind of the fault that most likely had something delivered again.

    That is the first one that held at, or came after, its first delivery: it kept the position from being committed.
    The repeat itself may come much later, after the session time-out and after other faults.
    """
    begun = [f for f in faults if f.begin_ms <= again_ms and f.kind != POISON]
    since = next((fault for fault in begun if fault.end_ms >= first_ms), None)
    if since is not None:
        return since.kind
    return begun[-1].kind if begun else "nothing"


def _find_commits(history: History, done_ms: dict[Place, int], found: Findings) -> None:
    offsets: dict[int, list[int]] = defaultdict(list)
    for partition, offset in sorted(done_ms):
        offsets[partition].append(offset)
    # The time from which all records up to this one were done.
    all_done = {
        partition: list(itertools.accumulate((done_ms[partition, o] for o in column), max))
        for partition, column in offsets.items()
    }
    highest: dict[int, int] = {}
    for commit in history.commits:
        column = offsets.get(commit.partition, [])
        below = bisect.bisect_left(column, commit.position)
        if below and all_done[commit.partition][below - 1] > commit.at_ms + history.clock_step_ms:
            found.premature.append(commit)
        if commit.position < highest.get(commit.partition, 0):
            found.rewound.append(commit)
        highest[commit.partition] = max(commit.position, highest.get(commit.partition, 0))
