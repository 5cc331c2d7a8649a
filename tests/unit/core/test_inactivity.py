"""The timer counts only the time in which something was expected and this process ran."""

from __future__ import annotations

from stream_guard.core.inactivity import InactivityTimer


def test_inactivity_adds_up_while_something_is_expected() -> None:
    timer = InactivityTimer(tick_s=1)
    assert timer.measure(0, expecting=True) == 0
    assert timer.measure(1, expecting=True) == 1
    assert timer.measure(2, expecting=True) == 2


def test_time_in_which_this_process_was_stopped_counts_as_two_ticks() -> None:
    timer = InactivityTimer(tick_s=1)
    timer.measure(0, expecting=True)
    assert timer.measure(1_000, expecting=True) == 2


def test_an_event_starts_again_at_zero() -> None:
    timer = InactivityTimer(tick_s=1)
    timer.measure(0, expecting=True)
    timer.measure(1, expecting=True)
    timer.reset()
    assert timer.measure(2, expecting=True) == 1


def test_nothing_counts_while_nothing_is_expected_or_the_timer_is_paused() -> None:
    timer = InactivityTimer(tick_s=1)
    timer.measure(0, expecting=True)
    timer.measure(1, expecting=True)
    assert timer.measure(2, expecting=False) == 0
    timer.pause(3)
    assert timer.measure(4, expecting=True) == 1
