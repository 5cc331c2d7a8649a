"""A gate holds only for what was measured, and no draft lowers the bar that it has to pass."""

from __future__ import annotations

import pytest

from stream_guard.core.errors import PolicyError
from stream_guard.offline.improve.gates import (
    GoldenFigures,
    Measured,
    Share,
    check_gates,
    gates_of,
)
from stream_guard.policies.metadata import Gates

GOLDEN = GoldenFigures("golden.csv", "0" * 64, 10, 0.5, 0.9, 2, 2, 0)
ALL = {"min_f1": 0.9, "max_flips": 0.02, "min_agreement": 0.9}


def held(measured: Measured, limits: dict[str, float] = ALL) -> dict[str, bool]:
    return {f"{g.name} {g.of.partition(':')[0]}": g.held for g in check_gates(limits, measured)}


def test_what_was_not_measured_does_not_hold() -> None:
    assert held(Measured(GOLDEN)) == {
        "min_f1 10 rows of golden.csv": True,
        "max_flips backtest": False,
        "min_agreement judged again": False,
    }
    [gate] = check_gates({"max_flips": 1.0}, Measured(GOLDEN))
    assert "nothing was measured" in str(gate)


def test_a_limit_itself_holds() -> None:
    on_it = Measured(GOLDEN, backtest_flips=Share(2, 100), people=Share(9, 10))
    assert set(held(on_it).values()) == {True}
    past = Measured(GOLDEN, backtest_flips=Share(3, 100), people=Share(8, 10))
    assert list(held(past).values()) == [False, False, True]


def test_a_shadow_counts_beside_the_backtest_and_alone() -> None:
    both = Measured(GOLDEN, backtest_flips=Share(0, 9), shadow_flips=Share(9, 9))
    assert held(both, {"max_flips": 0.5}) == {"max_flips backtest": True, "max_flips shadow": False}
    alone = Measured(GOLDEN, shadow_flips=Share(0, 9), shadow_people=Share(1, 1))
    assert held(alone, {"max_flips": 0.5, "min_agreement": 1}) == {
        "max_flips shadow": True,
        "min_agreement shadow": True,
    }


def test_a_golden_set_without_an_f1_holds_no_gate() -> None:
    without = GoldenFigures("golden.csv", "0" * 64, 10, None, None, 0, 0, 0)
    assert not any(gate.held for gate in check_gates({"min_f1": 0.0}, Measured(without)))


def test_a_draft_adds_gates_and_lowers_none() -> None:
    live, draft = Gates(min_f1=0.9), Gates(min_f1=0.1, max_flips=0.5)
    assert gates_of(live, draft, "spam") == {"min_f1": 0.9, "max_flips": 0.5}
    assert gates_of(Gates(), draft, "spam") == {"min_f1": 0.1, "max_flips": 0.5}
    with pytest.raises(PolicyError, match="spam: has no gates"):
        gates_of(Gates(), Gates(), "spam")
