"""How long an engine may be silent, and how often it may be rebuilt. Pure: the time is an argument."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stream_guard.settings import EngineSettings


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


class RebuildBudget:
    """Counts rebuilds within ``engine.rebuild_window_s``, and says how long to pause before the next."""

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._times: deque[float] = deque()
        self._fruitless = 0

    def __len__(self) -> int:
        return len(self._times)

    def judged(self) -> None:
        """Note that the engine has judged something: the next pause is the shortest again."""
        self._fruitless = 0

    def spend(self, now_s: float) -> float | None:
        """Count one rebuild more; return the pause before it in s, or None where it is one too many."""
        settings = self._settings
        while self._times and now_s - self._times[0] > settings.rebuild_window_s:
            self._times.popleft()
        if len(self._times) >= settings.rebuilds_max:
            return None
        self._times.append(now_s)
        pause_s = settings.rebuild_backoff_s_min * 2.0 ** min(self._fruitless, 30)
        self._fruitless += 1
        return min(settings.rebuild_backoff_s_max, pause_s)
