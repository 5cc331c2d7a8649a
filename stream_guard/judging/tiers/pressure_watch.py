"""Measures the pressure, and says when its level changes: in the metrics and in the log."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from stream_guard.judging.tiers.pressure import NAMES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stream_guard.core.clock import Clock
    from stream_guard.judging.tiers.pressure import Pressure
    from stream_guard.judging.tiers.tiered_request import TieredRequest
    from stream_guard.telemetry.metrics import Metrics

__all__ = ["observe_pressure", "oldest_s"]

_log = structlog.get_logger(__name__)


def oldest_s(entries: Iterable[TieredRequest], now_s: float) -> float:
    """Return the age of the oldest post that presses, in s; 0 if there is none.

    A post that a quota delays does not press, and neither does one of the class ``backfill``: both wait on purpose. A
    delay that is over does not count either. A post that waits for an equal one is as old as that one.

    Args:
        entries: all that are not delivered, oldest first.
        now_s: monotonic time in s.
    """
    age_s = 0.0
    for entry in entries:
        request = entry.request
        waits = request.delayed or (request.lane is not None and request.lane.backfill)
        if waits or entry.leader is not None:
            continue
        if entry.released_s is None:
            return max(age_s, now_s - entry.since_s)
        age_s = max(age_s, now_s - entry.released_s)  # a later one may press more
    return age_s


def observe_pressure(
    pressure: Pressure, age_s: float, lag_records: int | None, clock: Clock, metrics: Metrics
) -> None:
    """Decide what to leave out from now on, by the oldest post's age and the lag; None if the lag is unknown."""
    before = pressure.level
    level = pressure.update(clock.monotonic_s(), age_s, lag_records)
    if level == before:
        return
    metrics.pressure_level.set(level)
    metrics.pressure_changes.labels(NAMES[level]).inc()
    (_log.warning if level > before else _log.info)(
        "pressure_changed",
        level=NAMES[level],
        before=NAMES[before],
        oldest_s=round(age_s, 1),
        lag_records=lag_records,
    )
