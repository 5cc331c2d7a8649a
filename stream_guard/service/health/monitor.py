"""Checks once a second whether the stream moves, and updates metrics, probes and the log. A stall ends the service.

Of a record it shows only the place: topic, partition and offset.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from stream_guard.service.health.lag import LagWatch
from stream_guard.service.health.stall import (
    HeadOfLine,
    StallDetector,
    StallLimits,
    dump_threads,
    task_stacks,
)

if TYPE_CHECKING:
    from stream_guard.core.clock import Clock
    from stream_guard.core.errors import StreamGuardError
    from stream_guard.service.health.state import Health
    from stream_guard.service.health.watchdog import LoopWatchdog
    from stream_guard.settings import Settings
    from stream_guard.stream.poll_loop import PollLoop
    from stream_guard.telemetry.metrics import Metrics

_log = structlog.get_logger(__name__)
TICK_S: Final = 1.0
STOP_S: Final = 30.0
"""What stands still may keep the process from ending, too: it is ended after this."""


class Monitor:
    """Watches one poll loop.

    Args:
        settings: all sections; ``delivery`` is used, and what it must exceed.
        poll_loop, health, metrics, clock: the parts.
        watchdog: ends the process where a stall keeps it from stopping, too.
        tick_s: how often it checks, in s.
    """

    def __init__(
        self,
        settings: Settings,
        poll_loop: PollLoop,
        *,
        health: Health,
        metrics: Metrics,
        clock: Clock,
        watchdog: LoopWatchdog | None = None,
        tick_s: float = TICK_S,
    ) -> None:
        delivery = settings.delivery
        self._poll_loop = poll_loop
        self._health = health
        self._metrics = metrics
        self._clock = clock
        self._watchdog = watchdog
        self._tick_s = tick_s
        limits = StallLimits(health.stall_s_max, settings.stall_s, delivery.record_age_s_max)
        self._stalls = StallDetector(limits, tick_s)
        self._lag = LagWatch()
        self._said: set[str] = set()  # topics without a route that were warned about
        self._heads = HeadOfLine(delivery.head_of_line_age_s_max, delivery.head_of_line_records_max)

    async def run(self) -> StreamGuardError:
        """Return an error once something stands still; every stack is in the log then."""
        while True:
            begun_s = self._clock.monotonic_s()
            await asyncio.sleep(self._tick_s)
            late_s = self._clock.monotonic_s() - begun_s - self._tick_s
            self._metrics.loop_lag.observe(max(0.0, late_s))
            stalled = self.check()
            if stalled is not None:
                _log.critical("stalled", error=str(stalled), tasks=task_stacks())
                dump_threads()
                if self._watchdog is not None:
                    self._watchdog.end_within(STOP_S, stalled.exit_code)
                return stalled

    def _show_lag(self) -> None:
        standings = self._poll_loop.standings()
        ages_s = self._lag.ages_s(standings, self._clock.wall_ns())
        behind = {one.partition: one.behind for one in standings if one.behind is not None}
        self._metrics.show_lag(behind, ages_s)

    def _show_topics_without_route(self) -> None:
        topics = self._poll_loop.topics_without_route()
        self._metrics.topics_without_route.set(len(topics))
        self._health.details["topics_without_route"] = topics
        for topic in topics:
            if topic not in self._said:
                _log.warning(
                    "topic_without_route",
                    topic=topic,
                    remedy="kafka.topic_pattern catches it and no policy judges it, so it is not read; add it to "
                    "routes.yaml, or narrow the pattern",
                )
        self._said = set(topics)

    def check(self) -> StreamGuardError | None:
        """Update metrics and health once; return an error where something stands still."""
        now_s = self._clock.monotonic_s()
        heads = self._poll_loop.heads()
        progress = self._poll_loop.progress(heads, engine_ready=self._health.engine_ready)
        self._metrics.head_of_line_age.set(progress.oldest_s)
        self._show_lag()
        self._show_topics_without_route()
        self._poll_loop.show_lanes()
        # Without an engine every head waits, and the log says so already.
        for head in self._heads.update(heads if progress.engine_ready else [], now_s):
            _log.warning(
                "head_of_line",
                partition=f"{head.partition.topic}/{head.partition.partition}",
                offset=head.offset,
                age_s=round(head.age_s, 1),
                held_back=head.held_back,
                trace_id=head.trace_id,
            )
        self._health.details["progress"] = progress._asdict()
        self._health.details["head_of_line"] = [
            {**head._asdict(), "partition": f"{head.partition.topic}/{head.partition.partition}"}
            for head in self._heads.hindering
        ]
        stalled = self._stalls.check(progress, now_s)
        if stalled is not None:
            self._health.stalled = str(stalled)
        return stalled
