"""Decides from counts and times whether the service makes progress. Pure, except for the two dumps.

Time in which this process did not run (stopped, or the machine asleep) does not count. A broker or an engine that is
down is no stall: each has its own deadline. Dumps show files, lines and functions, and no values.
"""

from __future__ import annotations

import asyncio
import faulthandler
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from stream_guard.core.errors import BrokerError, StallError
from stream_guard.core.inactivity import InactivityTimer

if TYPE_CHECKING:
    from stream_guard.core.errors import StreamGuardError
    from stream_guard.core.kafka_types import Partition
    from stream_guard.stream.progress import Head, Progress


class StallLimits(NamedTuple):
    """How long each may stand still, in s.

    Attributes:
        poll_s: the poll loop; above the time that a rebalance may take.
        progress_s: records in flight without one being finished, or positions due without a commit.
        oldest_s: one record in flight while there was an engine.
    """

    poll_s: float
    progress_s: float
    oldest_s: float


class StallDetector:
    """Compares the progress with that of the last tick.

    Args:
        limits: how long each may stand still.
        tick_s: how often :meth:`check` is called, in s.
    """

    def __init__(self, limits: StallLimits, tick_s: float) -> None:
        self._limits = limits
        self._last: Progress | None = None
        self._polling = InactivityTimer(tick_s)
        self._finishing = InactivityTimer(tick_s)
        self._committing = InactivityTimer(tick_s)
        self._up = InactivityTimer(tick_s)

    def check(self, now: Progress, now_s: float) -> StreamGuardError | None:
        """Return an error if something stands still, or None.

        Args:
            now: the progress so far.
            now_s: the monotonic time, in s.
        """
        last, self._last = self._last, now
        limits = self._limits
        if last is not None:
            if now.turns != last.turns:
                self._polling.reset()
            if now.finished != last.finished:
                self._finishing.reset()
            if now.committed != last.committed:
                self._committing.reset()
        working = now.in_flight > 0 and now.engine_ready
        poll_s = self._polling.measure(now_s, expecting=True)
        finish_s = self._finishing.measure(now_s, expecting=working)
        if now.uncommitted and last is not None and now.finished == last.finished:
            self._committing.pause(now_s)  # nothing shows that the broker is up
        commit_s = self._committing.measure(now_s, expecting=now.uncommitted)
        # A record's age counts from when the engine was ready last.
        oldest_s = min(now.oldest_s, self._up.measure(now_s, expecting=now.engine_ready))
        if poll_s > limits.poll_s:
            return StallError(f"the poll loop has not turned for {poll_s:.0f} s")
        if finish_s > limits.progress_s:
            return StallError(
                f"none of {now.in_flight} records in flight was finished within {limits.progress_s:g} s "
                "(delivery.stall_timeout_s), although the engine is ready"
            )
        if commit_s > limits.progress_s:
            return BrokerError(
                f"no position could be committed for {limits.progress_s:g} s (delivery.stall_timeout_s) while verdicts "
                "were acknowledged; finished records that were not committed are read again"
            )
        if working and oldest_s > limits.oldest_s:
            return StallError(
                f"a record has been in flight for {oldest_s:.0f} s, longer than {limits.oldest_s:g} s "
                "(delivery.record_age_s_max), while others were finished"
            )
        return None


class HeadOfLine:
    """Notices records at a partition's head that hold back others, and reports each at intervals.

    Args:
        age_s_max, held_back_max: a head that exceeds either one is reported.
        repeat_s: the interval of reports about one partition, in s.
    """

    def __init__(self, age_s_max: float, held_back_max: int, repeat_s: float = 60.0) -> None:
        self._age_s_max = age_s_max
        self._held_back_max = held_back_max
        self._repeat_s = repeat_s
        self._said_s: dict[Partition, float] = {}
        self.hindering: list[Head] = []

    def update(self, heads: list[Head], now_s: float) -> list[Head]:
        """Store the heads over a limit in :attr:`hindering`, and return those that are due for a report."""
        self.hindering = [
            head
            for head in heads
            if (head.age_s > self._age_s_max and not head.patient)
            or head.held_back > self._held_back_max
        ]
        there = {head.partition for head in self.hindering}
        self._said_s = {p: at for p, at in self._said_s.items() if p in there}
        news = [
            head
            for head in self.hindering
            if now_s - self._said_s.get(head.partition, float("-inf")) >= self._repeat_s
        ]
        self._said_s.update((head.partition, now_s) for head in news)
        return news


def task_stacks() -> dict[str, list[str]]:
    """Return the stack of each asyncio task by its name: file, line and function, outermost first."""
    return {
        f"{number}:{task.get_name()}": _stack_of(task.get_coro())
        for number, task in enumerate(asyncio.all_tasks())
    }


def _stack_of(coroutine: Any) -> list[str]:  # noqa: ANN401 - coroutines, generators, and what they await
    # Task.get_stack() gives the outermost frame only of a task that waits.
    lines: list[str] = []
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
        if frame is not None:
            code = frame.f_code
            lines.append(f"{code.co_filename}:{frame.f_lineno} {code.co_qualname}")
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)
    return lines


def dump_threads() -> None:
    """Write every thread's stack to stderr: files, lines and functions, no values."""
    if sys.__stderr__ is not None:
        faulthandler.dump_traceback(sys.__stderr__, all_threads=True)
