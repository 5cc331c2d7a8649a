"""The real clock; tests bring their own (:class:`stream_guard.testing.ManualClock`)."""

from __future__ import annotations

import time


class SystemClock:
    """A :class:`stream_guard.ports.Clock` on the system's."""

    wall_ns = staticmethod(time.time_ns)
    monotonic_s = staticmethod(time.monotonic)
