"""What ``make bench-step`` makes of its steps: each part's own time, means, and the target."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks import step
from benchmarks.parts import REST, Parts
from benchmarks.report import Report
from benchmarks.stand_in import THOUGHT_TOKENS, answer_ids
from stream_guard.judging.families.family import Budget
from stream_guard.judging.families.harmony.family import Harmony
from stream_guard.policies.policy import make_policy

if TYPE_CHECKING:
    from stream_guard.judging.families.harmony.tokenizer import HarmonyTokenizer


class Clock:
    """A time that a test moves."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def pass_s(self, seconds: float) -> None:
        self.now_s += seconds


def test_a_part_has_its_own_time_and_not_that_of_the_parts_it_calls() -> None:
    clock = Clock()
    parts = Parts(clock)

    def inner() -> None:
        clock.pass_s(2)

    def outer() -> str:
        clock.pass_s(1)
        owner.inner()
        clock.pass_s(4)
        return "done"

    owner = SimpleNamespace(inner=inner, outer=outer)
    parts.wrap(owner, "inner", "in")
    parts.wrap(owner, "outer", "out")
    clock.pass_s(100)
    parts.restart()
    assert owner.outer() == "done"
    clock.pass_s(8)
    assert parts.spent_s() == {"in": 2, "out": 5, REST: 8}


def test_time_of_a_part_that_fails_is_counted() -> None:
    clock = Clock()
    parts = Parts(clock)

    def fail() -> None:
        clock.pass_s(3)
        raise ValueError

    owner = SimpleNamespace(fail=fail)
    parts.wrap(owner, "fail", "failing")
    with pytest.raises(ValueError):  # noqa: PT011 - its own
        owner.fail()
    clock.pass_s(1)
    assert parts.spent_s() == {"failing": 3, REST: 1}


def test_each_step_counts_once_and_a_slow_round_does_not() -> None:
    slow = 50.0
    rounds = [
        [{"schedule": 0.001, "model": 9.0}, {"schedule": 0.003, "front end": 0.008}],
        [{"schedule": 0.001, "model": 9.0}, {"schedule": 0.003, "front end": 0.008}],
        [{"schedule": slow, "model": slow}, {"schedule": 0.003, "front end": slow}],
    ]
    parts = step.mean_ms(rounds)
    assert parts["schedule"] == pytest.approx((1 + 3) / 2)
    assert parts["front end"] == pytest.approx((0 + 8) / 2), "the last step sends everything"
    assert step.host_ms(parts) == pytest.approx(2 + 4), "the stand-in is no work of a host"


def test_no_step_gives_no_figure() -> None:
    assert step.host_ms(step.mean_ms([[], []])) == 0


def test_the_target_is_judged_at_its_own_size() -> None:
    report = Report("step", "", {}, machine={})
    for posts, before, free in ((64, 3.0, 3.0), (256, 9.0, 4.0)):
        for side, host in zip(step.SIDES, (before, 5.0, 6.0, free, 1.0), strict=True):
            report.raw.append(
                {"posts": posts, "side": side, "host": host, "parts": {}, "steps": 5}
                | {"waiting": 0, "all steps": 7}
            )
    step.fill_report(report)
    (target,) = report.targets
    assert (target.value, target.state) == (2.25, "reached")
    _, gains, _ = report.tables
    assert gains.columns == ("posts", "always", "answer", "on_retry")
    assert gains.rows[1] == (256, 9 / 5, 9 / 6, 9 / 4)


def test_a_profile_names_the_functions_with_most_own_time() -> None:
    stacks = [
        "main (step.py:1);schedule (scheduler.py:10) 3",
        "main (step.py:2);schedule (scheduler.py:11) 4",
        "main (step.py:2) 1",
    ]
    assert step.own_times(stacks) == [("schedule (scheduler.py)", 7 / 8), ("main (step.py)", 1 / 8)]


@pytest.fixture
def requests(full_tokenizer: HarmonyTokenizer) -> step.Requests:
    family = Harmony(full_tokenizer, "2025-01-01")
    policy = make_policy("board", step._POLICY)
    client: Any = SimpleNamespace(
        sampling_params=lambda sampling, *, probabilities: SimpleNamespace(
            **sampling._asdict(), probabilities=probabilities
        )
    )
    return step.Requests(family, policy, client, answer_ids(full_tokenizer, policy))


@pytest.mark.parametrize("side", step.SIDES)
def test_the_requests_of_every_side_write_the_same_completion(
    requests: step.Requests, full_tokenizer: HarmonyTokenizer, side: str
) -> None:
    script = answer_ids(full_tokenizer, make_policy("board", step._POLICY))
    for behind, params in requests.of(side):
        assert script[: len(behind)] == behind
        assert len(behind) + params.tokens_max >= THOUGHT_TOKENS
    assert (params.constraint is None) == (side in ("on_retry", "bare"))
    assert params.probabilities == (side != "bare")


def test_the_stand_ins_answer_is_one_that_counts_without_a_grammar(
    full_tokenizer: HarmonyTokenizer,
) -> None:
    family = Harmony(full_tokenizer, "2025-01-01")
    policy = make_policy("board", step._POLICY)
    ids = answer_ids(full_tokenizer, policy)
    allows = family.unconstrained(policy, Budget(2 * THOUGHT_TOKENS, 32)).allows
    assert allows(ids)
