"""Ends the process when the event loop stands still, which only a thread can notice.

Time in which the process was stopped does not count.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from typing import TYPE_CHECKING, Final, Self

import structlog

from stream_guard.core.errors import StallError
from stream_guard.core.inactivity import InactivityTimer
from stream_guard.service.health.stall import dump_threads

if TYPE_CHECKING:
    from collections.abc import Callable

_log = structlog.get_logger(__name__)
TICK_S: Final = 1.0


def _end_at_once(exit_code: int) -> None:
    os._exit(exit_code)


class LoopWatchdog:
    """While entered, watches the running event loop from a thread.

    Args:
        timeout_s: how long the loop may take for one turn.
        tick_s: how often both sides check, in s.
        end: called with the exit code after every thread's stack is on stderr. By default the process ends without
            cleaning up.
    """

    def __init__(
        self, timeout_s: float, tick_s: float = TICK_S, end: Callable[[int], None] = _end_at_once
    ) -> None:
        self._timeout_s = timeout_s
        self._tick_s = tick_s
        self._end = end
        self._beats = 0
        self._last: tuple[float, int] | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="loop watchdog", daemon=True)
        self._beating: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._beating = asyncio.create_task(self._beat(), name="loop watchdog")
        self._thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopped.set()
        if self._beating is not None:
            self._beating.cancel()

    def end_within(self, seconds: float, exit_code: int) -> None:
        """End the process after this time, even if the context is still open."""
        self._last = (time.monotonic() + seconds, exit_code)

    async def _beat(self) -> None:
        while True:
            self._beats += 1
            await asyncio.sleep(self._tick_s)

    def _watch(self) -> None:
        inactivity, seen = InactivityTimer(self._tick_s), 0
        while not self._stopped.wait(self._tick_s):
            if self._beats != seen:
                seen = self._beats
                inactivity.reset()
            silent_s = inactivity.measure(time.monotonic(), expecting=True)
            if self._last is not None and time.monotonic() > self._last[0]:
                dump_threads()
                self._end(self._last[1])
                return
            if silent_s > self._timeout_s:
                dump_threads()
                # Last, since logging may want a lock that the loop's thread holds.
                _log.critical(
                    "event_loop_stalled",
                    silent_s=round(silent_s),
                    remedy="see the stacks above; delivery.loop_timeout_s is the limit",
                )
                self._end(StallError.exit_code)
                return
