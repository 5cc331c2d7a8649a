"""What ``make bench-step`` makes of its steps: each part's own time, medians, and the target."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from benchmarks import step
from benchmarks.parts import REST, Parts
from benchmarks.report import Report
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


def test_medians_leave_out_the_stand_in_and_what_a_card_does() -> None:
    steps = [
        {"schedule": 0.001, "grammar": 0.004, "sampler": 9.0, "model": 9.0},
        {"schedule": 0.003, "grammar": 0.004, "sampler": 9.0, "model": 9.0},
        {"schedule": 0.002, "sampler": 9.0, "model": 9.0},
    ]
    parts = step.medians_ms(steps)
    assert parts["schedule"] == pytest.approx(2)
    assert step.host_ms(parts) == pytest.approx(2 + 4)


def test_the_target_is_judged_at_its_own_size() -> None:
    report = Report("step", "", {}, machine={})
    for posts, always, free in ((64, 3.0, 3.0), (256, 9.0, 4.0)):
        for side, host in (("always", always), ("on_retry", free), ("bare", 1.0)):
            report.raw.append(
                {"posts": posts, "side": side, "host": host, "parts": {}, "steps": 5}
                | {"waiting": 0, "all steps": 7}
            )
    step.fill_report(report)
    (target,) = report.targets
    assert (target.value, target.state) == (2.25, "reached")


def test_the_stand_ins_answer_is_one_that_counts_without_a_grammar(
    full_tokenizer: HarmonyTokenizer,
) -> None:
    family = Harmony(full_tokenizer, "2025-01-01")
    policy = make_policy("board", step._POLICY)
    ids = step.answer_ids(full_tokenizer, policy)
    allows = family.unconstrained(policy, Budget(2 * step.THOUGHT_TOKENS, 32)).allows
    assert allows(ids)
