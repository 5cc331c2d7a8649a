"""Says which breakers are open: in the log, on ``/healthz`` and as metrics."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import structlog

from stream_guard.core.times import time_text
from stream_guard.stream.breaker.entries import TripEntry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from stream_guard.stream.breaker.book import Book
    from stream_guard.stream.breaker.entries import ResetEntry
    from stream_guard.telemetry.metrics import Metrics

_log = structlog.get_logger(__name__)


class Notices:
    """Reports what changes.

    Args:
        metrics: shows open breakers and counts those that this replica opened.
        show: called with what ``/healthz`` shows, whenever it changes.
    """

    def __init__(self, metrics: Metrics, show: Callable[[Mapping[str, Any]], None]) -> None:
        self._metrics = metrics
        self._show = show
        self._shown: list[dict[str, Any]] | None = None

    def publish(self, book: Book, now_ms: int) -> None:
        """Report trips and resets, and the breakers that are open at this Unix time in ms."""
        news, book.news = book.news, []
        for entry, ours in news:
            self._report(entry, ours=ours)
        shown = [
            {
                **trip.scope._asdict(),
                "cause": trip.cause,
                "counted": trip.counted,
                "allowed": trip.allowed,
                "opened_at": time_text(trip.at_ms),
                "closes_at": time_text(closes_ms),
            }
            for trip, closes_ms in book.open(now_ms)
        ]
        if shown == self._shown:
            return
        if self._shown and not shown:
            _log.info("breakers_closed")
        self._shown = shown
        self._show({"open": shown})
        self._metrics.breaker_open.clear()
        counts = Counter((one["policy"] or "", one["action"] or "", one["window"]) for one in shown)
        for labels, count in counts.items():
            self._metrics.breaker_open.labels(*labels).set(count)

    def _report(self, entry: TripEntry | ResetEntry, *, ours: bool) -> None:
        scope = entry.scope
        if not isinstance(entry, TripEntry):
            _log.info("breaker_reset", **scope._asdict(), decided_at=time_text(entry.at_ms))
            return
        _log.warning(
            "breaker_opened",
            **scope._asdict(),
            cause=entry.cause,
            counted=entry.counted,
            allowed=entry.allowed,
            remedy="see what the verdicts violate; fix the policy, or decide breaker_reset",
        )
        if ours:
            labels = (scope.policy or "", scope.action or "", scope.window, entry.cause)
            self._metrics.breaker_trips.labels(*labels).inc()
