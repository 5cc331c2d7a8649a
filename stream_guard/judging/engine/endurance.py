"""Limits how often an engine is rebuilt, and sets the pause before a rebuild. Pure: the time is an argument."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stream_guard.settings import EngineSettings


class RebuildBudget:
    """Counts rebuilds within ``engine.rebuild_window_s``, and returns the pause before the next."""

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._times: deque[float] = deque()
        self._fruitless = 0

    def __len__(self) -> int:
        return len(self._times)

    def judged(self) -> None:
        """Record that the engine judged a post: the next pause is the shortest again."""
        self._fruitless = 0

    def spend(self, now_s: float) -> float | None:
        """Count one rebuild more; return the pause before it in s, or None above the limit."""
        settings = self._settings
        while self._times and now_s - self._times[0] > settings.rebuild_window_s:
            self._times.popleft()
        if len(self._times) >= settings.rebuilds_max:
            return None
        self._times.append(now_s)
        pause_s = settings.rebuild_backoff_s_min * 2.0 ** min(self._fruitless, 30)
        self._fruitless += 1
        return min(settings.rebuild_backoff_s_max, pause_s)
