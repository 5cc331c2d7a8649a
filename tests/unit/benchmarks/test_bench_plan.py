"""A plan follows the capacity formula, and the simulated update does what can be said of it by hand."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest

from benchmarks.plan import Inputs, main, make_plan, parse
from benchmarks.plan_run import compare
from benchmarks.rolling import Group, Rolled, recovery_s, simulate
from stream_guard.records.verdict_event import VerdictEvents
from tests.verdicts import make_verdict

GROUP = Group(
    members=3,
    partitions=6,
    arrival_per_s=200,
    service_per_s=100,
    start_s=10,
    stop_s=1,
    rebalance_s=2,
    settle_s=5,
)


def test_processes_are_those_of_the_formula() -> None:
    inputs = Inputs(posts_per_day=86_400_000, peak=2, to_model=0.5, generated_tokens=100)
    plan = make_plan(inputs)
    post_s = 200 * 2.6e-6 + 100 * 125e-6
    assert plan.peak_per_s == pytest.approx(2_000)
    assert plan.process_per_s == pytest.approx(1 / (0.5 * post_s))
    needed = 2_000 / (0.7 * plan.process_per_s)
    assert needed <= plan.processes < needed + 1
    assert plan.partitions % plan.processes == 0
    assert make_plan(replace(inputs, gpus=2)).gpus == 2 * plan.gpus


def test_a_kill_costs_the_time_until_the_group_notices() -> None:
    inputs = Inputs(posts_per_day=86_400_000, session_s=45, rebalance_s=0, commit_s=2)
    plan = make_plan(inputs)
    assert plan.killed_backlog == pytest.approx(45 * plan.peak_per_s / plan.processes)
    assert plan.killed_s is not None
    assert plan.killed_s > 45
    assert plan.repeated == pytest.approx(2 * plan.process_per_s)
    alone = make_plan(Inputs(posts_per_day=1_000))
    assert (alone.processes, alone.killed_s) == (1, None)


def test_bytes_grow_with_copies_and_days() -> None:
    one = make_plan(Inputs(replication=1, retention_days=1))
    three = make_plan(Inputs(replication=3, retention_days=2))
    assert three.in_bytes_per_s == pytest.approx(3 * one.in_bytes_per_s)
    assert three.disk_bytes == pytest.approx(6 * one.disk_bytes)


def test_a_verdict_has_about_as_many_bytes_as_the_default_says() -> None:
    value, headers = VerdictEvents(0).encode(
        make_verdict(), "00-" + "0" * 32 + "-" + "0" * 16 + "-00"
    )
    assert orjson.loads(value)
    size = len(value) + sum(len(name) + len(raw) for name, raw in headers)
    assert Inputs().verdict_bytes == pytest.approx(size, rel=0.35)


def test_a_billion_posts_a_day_under_forty_policies_have_a_plan(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--posts-per-day", "1e9", "--policies", "40", "--settle-s", "5"]) == 0
    said = capsys.readouterr().out
    for word in ("processes", "partitions", "GPUs", "TiB", "backlog is gone", "Assumes"):
        assert word in said


@pytest.mark.parametrize(
    "words",
    [["--posts-per-day", "0"], ["--to-model", "1.5"], ["--peak", "0.5"], ["--start-s", "-1"]],
)
def test_an_input_without_meaning_is_named(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse(words)
    assert words[0] in capsys.readouterr().err


def test_without_disturbance_nothing_waits() -> None:
    calm = simulate(replace(GROUP, start_s=0, stop_s=0, rebalance_s=0, settle_s=0), after_s=5)
    assert calm.backlog_max == pytest.approx(0)


def test_an_update_costs_its_pauses_and_the_missing_member() -> None:
    # With two of three members 200 posts/s come and 200 are judged: only the pauses leave a backlog.
    rolled = simulate(GROUP, after_s=120)
    assert rolled.rolled_s == pytest.approx(3 * (1 + 10 + 2) + 2 * 5)
    one_pause = 2 * 200
    assert rolled.backlog_max >= 2 * one_pause
    assert rolled.recovery_s is not None
    assert rolled.curve[-1][1] == pytest.approx(0)


def test_a_group_without_room_does_not_recover() -> None:
    assert simulate(replace(GROUP, arrival_per_s=301), after_s=60).recovery_s is None


def test_more_load_waits_longer_and_a_longer_start_too() -> None:
    base = simulate(GROUP, after_s=200)
    assert simulate(replace(GROUP, arrival_per_s=240), after_s=200).backlog_max > base.backlog_max
    assert simulate(replace(GROUP, arrival_per_s=240, start_s=20)).backlog_max > (
        simulate(replace(GROUP, arrival_per_s=240)).backlog_max
    )


def test_recovery_is_the_last_time_above_the_floor() -> None:
    assert recovery_s([]) is None
    assert recovery_s([(0, 0), (1, 100), (2, 3), (3, 50), (4, 4), (5, 0)]) == 3
    assert recovery_s([(0, 0), (1, 100)]) is None


def test_a_prediction_is_held_against_a_run() -> None:
    curve = [(0.25 * step, float(max(0, 100 - 2 * abs(step - 60)))) for step in range(200)]
    assert compare(Rolled(curve), curve) == (1, 1, 0)
    twice = [(at_s, 2 * waiting) for at_s, waiting in curve]
    height, time_ratio, apart = compare(Rolled(twice), curve)
    assert (height, time_ratio) == (2, 1)
    assert apart is not None
    assert apart > 0.1
    early = [(at_s, waiting) for at_s, waiting in curve if at_s < 14] + [(14.0, 0.0)]
    assert compare(Rolled(early), curve)[1] is not None
    assert compare(Rolled(curve), []) == (None, None, None)
    never = [(at_s, 10.0 * at_s) for at_s, _ in curve]
    assert compare(Rolled(curve), never) == (None, None, None)
