"""Measures how long something expected has not happened. Pure: the time is an argument."""

from __future__ import annotations


class InactivityTimer:
    """Adds up the time in which an event was expected and did not happen.

    At most two ticks count per measurement, because this process may have been stopped for longer.

    Args:
        tick_s: how often :meth:`measure` is called, in s.

    Attributes:
        inactive_s: the sum so far, in s.
    """

    def __init__(self, tick_s: float) -> None:
        self._tick_s = tick_s
        self._measured_s: float | None = None
        self.inactive_s = 0.0

    def reset(self) -> None:
        """Start again at zero, because the event happened."""
        self.inactive_s = 0.0

    def pause(self, now_s: float) -> None:
        """Do not count the time since the last measurement."""
        self._measured_s = now_s

    def measure(self, now_s: float, *, expecting: bool) -> float:
        """Add the time since the last measurement and return the sum, in s.

        Args:
            now_s: monotonic time in s.
            expecting: whether the event is expected; if not, the sum starts again at zero.
        """
        passed_s = 0.0 if self._measured_s is None else now_s - self._measured_s
        self._measured_s = now_s
        if expecting:
            self.inactive_s += min(passed_s, 2 * self._tick_s)
        else:
            self.inactive_s = 0.0
        return self.inactive_s
