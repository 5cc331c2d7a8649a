"""Limits how often the same log line is shown, and says how many were suppressed.

Critical lines, which say why the process ends, are never suppressed.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_WINDOW_S: Final = 60.0
_KINDS_MAX: Final = 1_000
"""Most kinds of lines counted at the same time; the messages of libraries are unbounded."""


class _Window:
    __slots__ = ("begun_s", "held", "shown")

    def __init__(self, begun_s: float) -> None:
        self.begun_s = begun_s
        self.shown = 0
        self.held = 0


class RepeatFilter(logging.Filter):
    """Limits the lines of one kind per minute; a kind is a logger, a level, and an event or message pattern.

    The first line of the next minute has the number of suppressed lines as ``suppressed``.

    Args:
        per_minute_max: most lines of one kind per minute; 0 for no limit.
        monotonic_s: the clock.
    """

    def __init__(
        self, per_minute_max: int, monotonic_s: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._max = per_minute_max
        self._monotonic_s = monotonic_s
        self._windows: dict[tuple[str, int, str], _Window] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a line is shown."""
        if not self._max or record.levelno >= logging.CRITICAL:
            return True
        own = record.msg if isinstance(record.msg, dict) else None
        kind = record.name, record.levelno, str(own.get("event") if own else record.msg)
        now_s = self._monotonic_s()
        window = self._windows.get(kind)
        if window is None or now_s - window.begun_s >= _WINDOW_S:
            held = 0 if window is None else window.held
            window = self._begin(kind, now_s)
            if held and own is not None:
                own["suppressed"] = held
            elif held:
                record.msg, record.args = f"{record.getMessage()} ({held} more were suppressed)", ()
        if window.shown >= self._max:
            window.held += 1
            return False
        window.shown += 1
        return True

    def _begin(self, kind: tuple[str, int, str], now_s: float) -> _Window:
        if len(self._windows) >= _KINDS_MAX and kind not in self._windows:
            self._windows.pop(next(iter(self._windows)))
        window = self._windows[kind] = _Window(now_s)
        return window
