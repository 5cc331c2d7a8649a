"""The real clock; tests bring their own (:class:`stream_guard.testing.ManualClock`)."""

from __future__ import annotations

import time
from typing import Protocol


class SystemClock:
    """A :class:`stream_guard.core.clock.Clock` on the system's."""

    wall_ns = staticmethod(time.time_ns)
    monotonic_s = staticmethod(time.monotonic)


class Clock(Protocol):
    """Time, so that tests can own it."""

    def wall_ns(self) -> int:
        """Unix time in ns."""

    def monotonic_s(self) -> float:
        """A clock that never goes back, in s."""
