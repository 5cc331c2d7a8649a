"""Pressure rises at once, falls slowly, and never by a limit that is not set."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from stream_guard.judging.tiers.pressure import Pressure
from stream_guard.settings import CascadeSettings

LIMITS: dict[str, Any] = {
    "pressure_effort_age_s_max": 10,
    "pressure_severe_only_age_s_max": 20,
    "pressure_undetermined_age_s_max": 40,
    "pressure_severe_only_lag_records_max": 1_000,
    "pressure_hold_s": 30,
    "pressure_recovery_ratio": 0.5,
}


def pressure(**changes: Any) -> Pressure:  # noqa: ANN401
    return Pressure(CascadeSettings(**{**LIMITS, **changes}))


@pytest.mark.parametrize(
    ("age_s", "lag", "level"),
    [(10, 0, 0), (10.1, 0, 1), (20.1, None, 2), (41, 0, 3), (0, 1_001, 2), (0, 1_000, 0)],
)
def test_a_limit_that_is_passed_raises_the_level_at_once(
    age_s: float, lag: int | None, level: int
) -> None:
    assert pressure().update(0, age_s, lag) == level


def test_by_default_age_shortens_the_ladder_and_nothing_else_is_left_out() -> None:
    default = Pressure(CascadeSettings())
    assert default.update(0, 59, 10**9) == 0
    assert default.update(1, 10**6, 10**9) == 1


def test_without_limits_nothing_is_ever_left_out() -> None:
    none = Pressure(CascadeSettings(pressure_effort_age_s_max=None))
    assert none.update(0, 10**9, 10**9) == 0


def test_it_falls_a_step_at_a_time_after_each_hold() -> None:
    p = pressure()
    assert p.update(0, 41, 0) == 3
    levels = [p.update(now, 0, 0) for now in (1, 30.9, 31, 60, 61, 90, 91, 500)]
    assert levels == [3, 3, 2, 2, 1, 1, 0, 0]


def test_it_stays_while_the_input_swings_about_the_limit() -> None:
    p = pressure()
    assert p.update(0, 11, 0) == 1
    # Under the limit, and not under half of it.
    assert {p.update(now, 9 if now % 2 else 11, 0) for now in range(1, 500)} == {1}
    assert p.update(500, 4.9, 0) == 1
    assert p.update(529, 6, 0) == 1  # the hold begins again
    assert p.update(530, 4.9, 0) == 1
    assert p.update(559, 4.9, 0) == 1
    assert p.update(560, 4.9, 0) == 0


def test_lag_alone_keeps_it_up() -> None:
    p = pressure()
    assert p.update(0, 0, 2_000) == 2
    assert p.update(100, 0, 501) == 2
    assert p.update(200, 0, 500) == 2
    assert p.update(230, 0, 500) == 1


def test_a_level_without_limits_is_none_to_stop_at() -> None:
    p = Pressure(
        CascadeSettings(
            pressure_effort_age_s_max=None, pressure_undetermined_age_s_max=40, pressure_hold_s=30
        )
    )
    assert p.update(0, 41, None) == 3
    assert p.update(1, 0, None) == 3
    assert p.update(31, 0, None) == 0


@pytest.mark.parametrize("unit", ["age_s", "lag_records"])
def test_limits_that_are_not_ascending_are_refused(unit: str) -> None:
    low, high = f"pressure_effort_{unit}_max", f"pressure_undetermined_{unit}_max"
    with pytest.raises(ValidationError, match=f"{high} must be above {low}"):
        CascadeSettings(**{low: 50, high: 50})


@given(
    st.lists(
        st.tuples(st.floats(0, 5), st.floats(0, 100), st.none() | st.integers(0, 3_000)),
        max_size=60,
    )
)
def test_it_always_recovers_and_never_falls_by_more_than_a_step(
    seen: list[tuple[float, float, int | None]],
) -> None:
    p, now = pressure(), 0.0
    for step, age, lag in seen:
        now += step
        before = p.level
        after = p.update(now, age, lag)
        assert after >= before - 1
        assert (age <= 40) or after == 3
    for _ in range(4):
        p.update(now, 0, 0)
        now += 31  # a float's breadth more than the hold
    p.update(now, 0, 0)
    assert p.level == 0
