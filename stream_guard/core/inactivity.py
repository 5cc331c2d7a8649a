"""For how long nothing was heard. Pure: the time is an argument."""

from __future__ import annotations


class SilenceWatch:
    """Adds up the time in which something should have happened and did not.

    Time in which nobody looked does not count beyond two ticks: this process may have been stopped, too.

    Args:
        tick_s: how often :meth:`look` is called, in s.
    """

    def __init__(self, tick_s: float) -> None:
        self._tick_s = tick_s
        self._looked_s: float | None = None
        self.silent_s = 0.0

    def heard(self) -> None:
        """Begin again at zero."""
        self.silent_s = 0.0

    def pause(self, now_s: float) -> None:
        """Let the time since the last look not count."""
        self._looked_s = now_s

    def look(self, now_s: float, *, expecting: bool) -> float:
        """Return for how long nothing has been heard while something was expected, in s."""
        passed_s = 0.0 if self._looked_s is None else now_s - self._looked_s
        self._looked_s = now_s
        if expecting:
            self.silent_s += min(passed_s, 2 * self._tick_s)
        else:
            self.silent_s = 0.0
        return self.silent_s
