"""The soak's checker: it objects to every planted fault, and to nothing in a clean history."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from stream_guard.records.verdict_changes import superseding_id
from stream_guard.records.verdict_event import verdict_id
from tests.soak.checker import Findings, check, objections
from tests.soak.facts import (
    Acknowledged,
    Commit,
    Decided,
    Exit,
    Expired,
    Fault,
    Generation,
    History,
    Input,
    Outcome,
    Read,
)
from tests.soak.people_checker import deadline_ms
from tests.soak.schedule import (
    BREAKER,
    CLOCK,
    CONSUMER_FREEZE,
    ENGINE_KILL,
    NETWORK_CUT,
    NETWORK_MUTE,
    REVOKED,
    deck,
    plan,
)
from tests.soak.stalls import Stall, stalls

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TOPIC = "posts"
POLICIES = {"first": "11", "second": "22"}


def verdict(partition: int, offset: int, policy: str, at_ms: int) -> Outcome:
    sha256 = POLICIES[policy]
    id_ = verdict_id(TOPIC, partition, offset, policy, sha256)
    name = f"p{partition}-{offset}"
    return Outcome(
        "verdict", TOPIC, partition, offset, policy, sha256, id_, name, at_ms, committed=True
    )


def dead_letter(partition: int, offset: int, at_ms: int) -> Outcome:
    return Outcome(
        "dead_letter", TOPIC, partition, offset, "", "", "", "digest", at_ms, committed=True
    )


def clean() -> History:
    """Two partitions of ten records, a second apart; each has one malformed and one aborted."""
    history = History(7, "at_least_once", "scripted", TOPIC, dict(POLICIES), ended_ms=20_000)
    for partition in (0, 1):
        for offset in range(10):
            at_ms = 1_000 * (offset + 1)
            if offset == 4:
                history.inputs.append(
                    Input(partition, offset, at_ms, "poison", "digest", aborted=False)
                )
                history.outcomes.append(dead_letter(partition, offset, at_ms + 20))
            elif offset == 6:
                history.inputs.append(Input(partition, offset, at_ms, "post", "x", aborted=True))
            else:
                name = f"p{partition}-{offset}"
                history.inputs.append(Input(partition, offset, at_ms, "post", name, aborted=False))
                history.acknowledged.append(Acknowledged(name, partition, offset))
                history.outcomes.extend(
                    verdict(partition, offset, policy, at_ms + 10 * number)
                    for number, policy in enumerate(POLICIES, 1)
                )
            history.commits.append(Commit(partition, offset + 1, at_ms + 20))
    for number, outcome in enumerate(history.outcomes):
        history.outcomes[number] = outcome._replace(log_topic="verdicts", log_offset=number)
    history.watched = True
    history.reads = reads_of(history.outcomes)
    history.faults.append(Fault("consumer kill -9", "one", 3_500, 3_500))
    history.faults.append(Fault("broker kill -9", "two", 8_500, 9_000))
    history.exits.append(Exit("one", 137, 3_500, asked=True))
    return history


def test_a_clean_history_meets_no_objection() -> None:
    found = check(clean())
    assert objections(found, clean()) == []
    assert (found.inputs, found.poison, found.aborted_inputs) == (18, 2, 2)
    assert (found.verdicts, found.dead_letters, found.commits) == (32, 2, 20)
    assert found.repeated == []


def lose_a_verdict(history: History) -> None:
    del history.outcomes[find(history, verdict(0, 3, "second", 4_020))]


def lose_a_dead_letter(history: History) -> None:
    del history.outcomes[find(history, dead_letter(1, 4, 5_020))]


def hide_a_verdict(history: History) -> None:
    change(history, verdict(0, 3, "second", 4_020), committed=False)


def change_an_id(history: History) -> None:
    history.outcomes.append(verdict(0, 3, "second", 4_500)._replace(id="0" * 32))


def judge_by_another_text(history: History) -> None:
    other = verdict_id(TOPIC, 0, 3, "second", "33")
    change(history, verdict(0, 3, "second", 4_020), sha256="33", id=other)


def commit_too_early(history: History) -> None:
    history.commits[3] = Commit(0, 4, 4_019)


def commit_what_is_lost_elsewhere(history: History) -> None:
    change(history, verdict(1, 2, "first", 3_010), appended_ms=19_000)


def commit_backwards(history: History) -> None:
    history.commits.append(Commit(0, 5, 15_000))


def judge_an_aborted_record(history: History) -> None:
    history.outcomes.append(verdict(0, 6, "first", 7_010)._replace(name="x"))


def judge_a_malformed_record(history: History) -> None:
    history.outcomes.append(verdict(0, 4, "first", 5_010)._replace(name="digest"))


def give_up_on_a_sound_post(history: History) -> None:
    history.outcomes.append(dead_letter(0, 3, 4_100))


def judge_what_nobody_sent(history: History) -> None:
    history.outcomes.append(verdict(0, 10, "first", 12_000))


def judge_another_topic(history: History) -> None:
    change(history, verdict(0, 3, "second", 4_020), topic="others")


def judge_another_post(history: History) -> None:
    change(history, verdict(0, 3, "second", 4_020), name="p0-2")


def alter_a_dead_letter(history: History) -> None:
    change(history, dead_letter(0, 4, 5_020), name="other")


def lose_an_input(history: History) -> None:
    history.acknowledged.append(Acknowledged("p0-10", 0, 10))


def read_what_is_aborted(history: History) -> None:
    history.reads.insert(3, Read("verdicts", 0, 99))


def read_twice(history: History) -> None:
    history.reads.append(history.reads[-1])


def read_out_of_order(history: History) -> None:
    history.reads[0], history.reads[1] = history.reads[1], history.reads[0]


def read_too_little(history: History) -> None:
    del history.reads[5]


def overtake_in_silence(history: History) -> None:
    overtake(history)
    history.expired.clear()


def tell_of_other_records_that_expired(history: History) -> None:
    overtake(history)
    history.expired[0] = history.expired[0]._replace(begin=9)


def commit_past_a_record_before_it_is_deleted(history: History) -> None:
    overtake(history)
    history.commits[8] = history.commits[8]._replace(at_ms=9_005)
    history.inputs[8] = history.inputs[8]._replace(deleted_ms=9_010)


def commit_backwards_in_a_generation(history: History) -> None:
    history.commits.append(Commit(0, 9, 15_000, 4))


def take_over_slowly(history: History) -> None:
    change(history, verdict(0, 9, "second", 10_020), appended_ms=21_100)
    history.commits[9] = Commit(0, 10, 21_101)
    history.generations.append(Generation(5, 11_000))
    history.ended_ms = 30_000


def end_by_itself(history: History) -> None:
    history.exits.append(Exit("two", 3, 9_000, asked=False))


def end_long_after_a_refusal(history: History) -> None:
    history.faults.append(Fault(REVOKED, "one", 9_000, 9_500))
    history.exits.append(Exit("two", 3, 29_501, asked=False))


def overtake(history: History) -> None:
    """Delete the first nine of a partition; one of them was never read, and the service says so."""
    for number, fact in enumerate(history.inputs[:9]):
        history.inputs[number] = fact._replace(deleted_ms=9_005)
    history.outcomes = [o for o in history.outcomes if (o.partition, o.offset) != (0, 8)]
    history.reads = reads_of(history.outcomes)
    history.expired.append(Expired(0, 8, 9))


def reads_of(outcomes: list[Outcome]) -> list[Read]:
    return sorted(Read(o.log_topic, o.log_partition, o.log_offset) for o in outcomes)


def crash(history: History) -> None:
    history.exits.append(Exit("two", 1, 9_000, asked=False))


def stand_still(history: History) -> None:
    change(history, verdict(0, 9, "second", 10_020), appended_ms=75_000)
    history.commits[9] = Commit(0, 10, 75_001)
    history.ended_ms = 80_000


def act_beyond_the_limit(history: History) -> None:
    """Let six verdicts recommend an action where a limit of two is reset once; a repeat is no further one."""
    history.actions_max = 2
    history.faults.append(Fault(BREAKER, "one", 9_000, 9_100))
    for offset in (0, 1, 2):
        for number, policy in enumerate(POLICIES, 1):
            change(
                history,
                verdict(0, offset, policy, 1_000 * (offset + 1) + 10 * number),
                action="remove",
            )


def decided(history: History) -> list[Decided]:
    """Let people decide about a verdict twice; the post comes again, and the second decision answers it.

    The second decision has the higher rank. The record at offset 9 of partition 1 has the post of offset 1 again.
    """
    history.ended_ms = 80_000
    about = verdict(1, 1, "first", 2_010)
    appended = 2_500
    history.decided += [
        Decided(0, number, appended, name, "review", at_ms, about.id, "first", "p1-1", 1, 1)
        for number, (name, at_ms) in enumerate((("d", 2_400), ("e", 2_450)))
    ]
    for decision in history.decided:
        id_ = superseding_id(decision.id, about.id)
        note(
            history, about, id=id_, appended_ms=2_600, decision_id=decision.id, changes="supersedes"
        )
    history.inputs[-1] = history.inputs[-1]._replace(name="p1-1", appended_ms=40_000)
    for policy, at_ms in (("first", 10_010), ("second", 10_020)):
        change(history, verdict(1, 9, policy, at_ms), name="p1-1", appended_ms=40_010)
    machines = verdict(1, 9, "first", 40_010)._replace(name="p1-1")
    change(history, machines, id=superseding_id("e", machines.id), decision_id="e")
    history.commits[-1] = Commit(1, 10, 40_020)
    history.reads = reads_of(history.outcomes)
    return history.decided


def note(history: History, like: Outcome, **to: object) -> None:
    """Add an outcome that is like another, at the end of the log."""
    log_offset = 1 + max(outcome.log_offset for outcome in history.outcomes)
    made = like._replace(**to, log_topic="verdicts", log_offset=log_offset)  # type: ignore[arg-type]
    history.outcomes.append(made)
    history.reads = reads_of(history.outcomes)


def delete(history: History) -> None:
    """Let the last record of a partition be a deletion, and have a retraction."""
    id_ = verdict_id(TOPIC, 0, 9, "*", "00")
    place = history.inputs.index(Input(0, 9, 10_000, "post", "p0-9", aborted=False))
    history.inputs[place] = Input(0, 9, 10_000, "delete", "p0-9", aborted=False)
    history.outcomes = [o for o in history.outcomes if (o.partition, o.offset) != (0, 9)]
    like = verdict(0, 9, "first", 10_010)
    note(history, like, kind="retraction", policy="*", sha256="00", id=id_, changes="retracts")


def test_decisions_and_deletions_meet_no_objection() -> None:
    history = clean()
    decided(history)
    delete(history)
    found = check(history)
    assert objections(found, history) == []
    assert (found.deletes, found.retractions) == (1, 1)
    assert (found.decisions, found.events, found.answered) == (2, 2, 1)
    assert found.repeated == []


def forget_a_decision(history: History) -> None:
    decided(history)
    history.decided.append(history.decided[0]._replace(id="f", offset=9))


def give_an_event_another_id(history: History) -> None:
    first, _ = decided(history)
    place = next(n for n, o in enumerate(history.outcomes) if o.decision_id == first.id)
    history.outcomes[place] = history.outcomes[place]._replace(id="0" * 32)


def answer_by_the_machine(history: History) -> None:
    decided(history)
    machines = verdict(1, 9, "first", 40_010)._replace(name="p1-1")
    place = next(n for n, o in enumerate(history.outcomes) if (o.offset, o.decision_id) == (9, "e"))
    history.outcomes[place] = history.outcomes[place]._replace(id=machines.id, decision_id="")


def answer_by_the_first_decision(history: History) -> None:
    decided(history)
    machines = verdict(1, 9, "first", 40_010)
    place = next(n for n, o in enumerate(history.outcomes) if (o.offset, o.decision_id) == (9, "e"))
    history.outcomes[place] = history.outcomes[place]._replace(
        id=superseding_id("d", machines.id), decision_id="d"
    )


def answer_for_another_post(history: History) -> None:
    decided(history)
    machines = verdict(1, 8, "first", 9_010)
    change(history, machines, id=superseding_id("e", machines.id), decision_id="e")


def count_a_late_decision(history: History) -> None:
    first, _ = decided(history)
    history.decided[0] = first._replace(offset=7)  # behind the second, and of a lower rank


def repeat_an_event(history: History) -> None:
    decided(history)
    history.mode = "exactly_once"
    note(history, next(o for o in history.outcomes if o.decision_id == "d"))


def lose_a_retraction(history: History) -> None:
    delete(history)
    history.outcomes.pop()
    history.reads = reads_of(history.outcomes)


def retract_under_another_id(history: History) -> None:
    delete(history)
    history.outcomes[-1] = history.outcomes[-1]._replace(id="0" * 32)


def judge_a_deletion(history: History) -> None:
    delete(history)
    note(history, verdict(0, 9, "first", 10_010))


def commit_nothing(history: History) -> None:
    history.commits.clear()


def change(history: History, outcome: Outcome, **to: object) -> None:
    place = find(history, outcome)
    history.outcomes[place] = history.outcomes[place]._replace(**to)  # type: ignore[arg-type]


def find(history: History, outcome: Outcome) -> int:
    """Return which outcome is this one, wherever it lies in its own log."""
    (place,) = (
        number
        for number, one in enumerate(history.outcomes)
        if one._replace(log_topic="", log_offset=0) == outcome
    )
    return place


@pytest.mark.parametrize(
    ("plant", "says"),
    [
        (lose_a_verdict, "owed and never delivered: 1, such as (0, 3, 'second')"),
        (lose_a_dead_letter, "owed and never delivered: 1, such as (1, 4, '')"),
        (hide_a_verdict, "owed and never delivered: 1"),
        (change_an_id, "another id than theirs: 1"),
        (judge_by_another_text, "another id than theirs: 1"),
        (commit_too_early, "premature commits: 1, such as Commit(partition=0, position=4"),
        (commit_what_is_lost_elsewhere, "premature commits: 8"),
        (commit_backwards, "commits that went back: 1"),
        (judge_an_aborted_record, "records of aborted transactions: 1"),
        (judge_a_malformed_record, "a kind that their record cannot have: 1"),
        (give_up_on_a_sound_post, "a kind that their record cannot have: 1"),
        (judge_what_nobody_sent, "outcomes of no record: 1"),
        (judge_another_topic, "outcomes of no record: 1"),
        (judge_another_post, "another record's content: 1"),
        (alter_a_dead_letter, "another record's content: 1"),
        (lose_an_input, "not in their log: 1"),
        (read_what_is_aborted, "read, and not committed: 1"),
        (read_twice, "read again, or out of order: 1"),
        (read_out_of_order, "read again, or out of order: 1"),
        (read_too_little, "committed, and never read: 1"),
        (overtake_in_silence, "overtaken by retention, and not logged: 1"),
        (tell_of_other_records_that_expired, "overtaken by retention, and not logged: 1"),
        (commit_past_a_record_before_it_is_deleted, "premature commits: 1"),
        (commit_backwards_in_a_generation, "commits that went back: 1"),
        (take_over_slowly, "a takeover of 10.1 s after broker kill -9 of two"),
        (end_by_itself, "exits of its own: 1"),
        (end_long_after_a_refusal, "exits of its own: 1"),
        (crash, "a code without a meaning: 1"),
        (stand_still, "no progress for 65.0 s after broker kill -9 of two"),
        (act_beyond_the_limit, "actions above their limit: 2"),
        (forget_a_decision, "decisions without an event: 1"),
        (give_an_event_another_id, "another id than theirs: 1"),
        (answer_by_the_machine, "verdicts against a person's decision: 1"),
        (answer_by_the_first_decision, "verdicts against a person's decision: 1"),
        (answer_for_another_post, "another record's content: 1"),
        (count_a_late_decision, "late decisions that count: 1"),
        (repeat_an_event, "events repeated: 1"),
        (lose_a_retraction, "owed and never delivered: 1, such as (0, 9, '*')"),
        (retract_under_another_id, "another id than theirs: 1"),
        (judge_a_deletion, "a kind that their record cannot have: 1"),
        (commit_nothing, "no commit was observed"),
    ],
)
def test_it_objects_to(plant: Callable[[History], None], says: str) -> None:
    history = clean()
    plant(history)
    said = objections(check(history), history)
    assert any(says in sentence for sentence in said), said


def test_a_repeat_is_laid_to_a_fault_and_broken_only_where_exactly_once_is_promised() -> None:
    history = clean()
    history.watched = False
    history.outcomes.append(verdict(0, 2, "first", 3_900))
    history.outcomes.append(dead_letter(0, 4, 9_100))
    found = check(history)
    assert len(found.repeated) == 2
    assert found.repeated_by == {"consumer kill -9": 1, "broker kill -9": 1}
    assert objections(found, history) == []
    history.mode = "exactly_once"
    assert "repeated to a reader with read_committed: 2" in objections(check(history), history)[0]


def test_a_repeat_is_laid_to_the_fault_after_its_first_delivery_however_late_it_comes() -> None:
    history = clean()
    history.watched = False
    history.outcomes.append(verdict(0, 2, "first", 12_000))  # first at 3,010: before both
    history.outcomes.append(verdict(0, 9, "first", 12_000))  # first at 10,010: after both
    assert check(history).repeated_by == {"consumer kill -9": 1, "broker kill -9": 1}
    history.faults.clear()
    assert check(history).repeated_by == {"nothing": 2}


def test_a_repeat_of_an_aborted_transaction_is_no_repeat_to_a_reader_of_committed_ones() -> None:
    history = clean()
    history.mode = "exactly_once"
    history.outcomes.append(verdict(0, 2, "first", 3_900)._replace(committed=False))
    found = check(history)
    assert (len(found.repeated), found.aborted_outcomes) == (0, 1)
    assert objections(found, history) == []


def test_what_the_clock_jumped_is_allowed_for() -> None:
    history = clean()
    commit_too_early(history)
    history.clock_step_ms = 1
    assert check(history).premature == []


def test_a_record_that_retention_overtook_is_counted_where_the_service_says_so() -> None:
    history = clean()
    overtake(history)
    found = check(history)
    assert (found.overtaken, found.lost, objections(found, history)) == (1, [], [])


def test_a_member_that_the_brokers_refuse_ends_as_it_says() -> None:
    history = clean()
    history.faults.append(Fault(REVOKED, "one", 9_000, 9_500))
    history.exits.append(Exit("two", 3, 12_000, asked=False))
    found = check(history)
    assert (found.refused_exits, objections(found, history)) == (1, [])


def test_a_start_that_no_broker_answers_ends_as_it_says_and_a_member_that_runs_does_not() -> None:
    history = clean()
    history.faults.append(Fault(NETWORK_CUT, "all brokers", 30_000, 40_000))
    history.exits.append(Exit("two", 137, 29_000, asked=True))
    history.exits.append(Exit("two", 3, 36_000, asked=False))
    found = check(history)
    assert (found.refused_exits, found.own_exits) == (1, [])
    history.exits[-1] = Exit("two", 3, 59_000, asked=False)
    assert len(check(history).own_exits) == 1


def test_a_member_that_is_frozen_while_it_starts_may_end_as_if_no_broker_answered() -> None:
    history = clean()
    history.exits = [Exit("two", 137, 5_000, asked=True), Exit("two", 3, 22_500, asked=False)]
    history.ended_ms = 30_000
    assert len(check(history).own_exits) == 1
    history.faults.append(Fault(CONSUMER_FREEZE, "one, two", 12_000, 22_000))
    found = check(history)
    assert (found.refused_exits, found.own_exits) == (1, [])
    # It had started before it was frozen.
    history.exits[0] = Exit("two", 137, -5_000, asked=True)
    assert len(check(history).own_exits) == 1
    # Another one was frozen.
    history.exits[0] = Exit("two", 137, 5_000, asked=True)
    history.faults[-1] = Fault(CONSUMER_FREEZE, "one", 12_000, 22_000)
    assert len(check(history).own_exits) == 1


def test_a_takeover_runs_from_the_generation_to_the_slowest_partition_with_work() -> None:
    history = clean()
    change(history, verdict(1, 8, "second", 9_020), appended_ms=9_900)
    history.generations += [Generation(4, 3_600), Generation(5, 9_500)]
    # Nothing was waiting at 3,600. At 9,500 one record of partition 1 was, and the fault had ended by then.
    assert check(history).takeover_s == [None, pytest.approx(0.4)]


def test_a_takeover_behind_a_broker_counts_from_its_return() -> None:
    history = clean()
    change(history, verdict(1, 8, "second", 9_020), appended_ms=9_900)
    history.generations.append(Generation(5, 9_100))
    history.faults[1] = history.faults[1]._replace(begin_ms=8_500, end_ms=9_700)
    assert check(history).takeover_s == [None, pytest.approx(0.2)]


def test_a_takeover_that_a_later_fault_holds_up_counts_from_its_end() -> None:
    history = clean()
    change(history, verdict(1, 8, "second", 9_020), appended_ms=9_900)
    history.generations.append(Generation(5, 9_100))
    history.faults.append(Fault("network at 20 kB/s", "all brokers", 9_300, 9_600))
    assert check(history).takeover_s == [None, pytest.approx(0.3), None]
    # It began when all was done.
    history.faults[2] = history.faults[2]._replace(begin_ms=9_950, end_ms=10_600)
    assert check(history).takeover_s[1] == pytest.approx(0.8)


def test_the_real_engine_may_give_up_on_a_post() -> None:
    history = clean()
    history.watched = False
    history.engine = "vllm"
    lose_a_verdict(history)
    history.outcomes.append(dead_letter(0, 3, 4_020)._replace(policy="second"))
    assert objections(check(history), history) == []


def test_a_stall_runs_from_when_there_was_work_until_the_next_is_done() -> None:
    # Idle until 1,000; then one every second, but for a hole from 3,000 to 9,000.
    arrived, done = [1_000, 2_000, 4_000, 5_000], [1_010, 3_000, 9_000, 9_000]
    found = stalls(arrived, done, partition=2, ended_ms=20_000)
    assert found == [Stall(2, 2_000, 3_000), Stall(2, 4_000, 9_000)]


def test_what_is_never_done_stalls_until_the_end() -> None:
    assert stalls([1_000], [1 << 62], partition=0, ended_ms=5_000) == [Stall(0, 1_000, 5_000)]


def test_a_stall_counts_from_the_fault_on_and_for_every_fault_that_it_touches() -> None:
    history = clean()
    change(history, verdict(0, 3, "second", 4_020), appended_ms=9_500)
    for offset in (4, 5, 7, 8):
        history.outcomes = [
            o._replace(appended_ms=max(o.appended_ms, 9_500))
            if (o.partition, o.offset) == (0, offset)
            else o
            for o in history.outcomes
        ]
    history.commits = [Commit(0, 10, 15_000)]
    found = check(history)
    assert found.stall_s == [pytest.approx(5.5), pytest.approx(1.0)]


def test_a_member_may_be_without_a_decision_while_a_broker_is_away_and_a_moment_longer() -> None:
    assert deadline_ms(1_000, []) == 16_000
    muted = Fault(NETWORK_MUTE, "one", 15_000, 25_000)
    assert deadline_ms(1_000, [muted, Fault(BREAKER, "one", 30_000, 90_000)]) == 40_000
    assert deadline_ms(1_000, [muted._replace(begin_ms=16_001)]) == 16_000
    assert deadline_ms(25_001, [muted]) == 40_001
    # A fault that follows before the time is up counts as well.
    assert deadline_ms(1_000, [muted._replace(begin_ms=39_000, end_ms=41_000), muted]) == 56_000


def test_facts_survive_their_file(tmp_path: Path) -> None:
    history = clean()
    decided(history)
    history.save(tmp_path / "facts.json.gz")
    again = History.load(tmp_path / "facts.json.gz")
    assert again == history
    assert check(again) == check(history)


def test_a_schedule_is_its_seeds_and_has_every_card_before_any_comes_twice() -> None:
    for short in (False, True):
        for engine in ("scripted", "vllm"):
            cards = deck(engine, short=short)
            planned = plan(3, len(cards), engine=engine, short=short)
            assert planned == plan(3, len(cards), engine=engine, short=short)
            assert planned != plan(4, len(cards), engine=engine, short=short)
            assert sorted((fault.kind, fault.role) for fault in planned) == sorted(cards)
    assert {kind for kind, _ in deck("vllm")} == {kind for kind, _ in deck("vllm", short=True)}


def test_a_schedule_may_be_of_some_kinds_only() -> None:
    assert {fault.kind for fault in plan(3, 4, engine="vllm", only=(ENGINE_KILL,))} == {ENGINE_KILL}
    with pytest.raises(ValueError, match="'scripted' has no fault 'engine kill -9'"):
        plan(3, 4, engine="scripted", only=(ENGINE_KILL,))
    every = {kind for kind, _ in deck("scripted")}
    planned = plan(3, 100, engine="scripted", without=(CLOCK,))
    assert {fault.kind for fault in planned} == every - {CLOCK}
    with pytest.raises(ValueError, match="no kind of fault is left"):
        plan(3, 4, engine="scripted", without=every)


def test_every_finding_is_objected_to_or_only_counted() -> None:
    """A list that is added to the findings and forgotten in the objections would pass in silence."""
    counted = {"repeated", "acted", "copied"}  # by mode, and against the limit, above
    history = clean()
    for field in dataclasses.fields(Findings):
        found = check(history)
        value = getattr(found, field.name)
        if isinstance(value, list) and field.name not in counted | {"stall_s", "takeover_s"}:
            value.append("planted")
            assert objections(found, history), field.name
