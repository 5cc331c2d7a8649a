"""The system's clock. Tests use :class:`stream_guard.testing.ManualClock` instead."""

from __future__ import annotations

import time
from typing import Protocol


class SystemClock:
    """A :class:`Clock` that reads the system's clocks."""

    wall_ns = staticmethod(time.time_ns)
    monotonic_s = staticmethod(time.monotonic)


class Clock(Protocol):
    """A source of time that tests can replace."""

    def wall_ns(self) -> int:
        """Unix time in ns."""

    def monotonic_s(self) -> float:
        """Monotonic time in s."""
