"""Retracts the verdicts on posts that were deleted at their source.

Judgements come in any order. So a retraction waits until no earlier record of the same post is in flight: its verdict
is then published before the retraction, and not behind it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_guard.records.verdict_changes import deleted_event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from stream_guard.stream.in_flight import InFlightRecord, Outgoing
    from stream_guard.stream.outgoing import OutgoingBuilder
    from stream_guard.telemetry.metrics import Metrics

__all__ = ["Retractions"]


class Retractions:
    """Builds retractions, and keeps those that wait.

    Args:
        outputs: builds outputs.
        metrics: where retractions are counted.
        publish: sends a retraction.

    Attributes:
        waiting: by the record that it waits for, what waits for it. A retraction waits for one record at a time.
    """

    def __init__(
        self, outputs: OutgoingBuilder, metrics: Metrics, publish: Callable[[Outgoing], None]
    ) -> None:
        self._publish = publish
        self._outputs = outputs
        self._metrics = metrics
        self.waiting: dict[InFlightRecord, list[tuple[InFlightRecord, str | None]]] = {}

    def take(
        self,
        in_flight: InFlightRecord,
        content_id: str | None,
        live: Mapping[int, InFlightRecord],
        now_ns: int,
    ) -> None:
        """Publish the retraction that a deletion owes, once no earlier record of the post is in flight.

        Args:
            in_flight: the record of the deletion.
            content_id: of the post; None where the record does not say it.
            live: the records of its partition that are in flight, by offset.
            now_ns: Unix time in ns.
        """
        ahead = _ahead(in_flight, content_id, live.values())
        if ahead is not None:
            self.waiting.setdefault(ahead, []).append((in_flight, content_id))
        else:
            self._publish(self._build(in_flight, content_id, now_ns))

    def finished(
        self, done: InFlightRecord, live: Mapping[int, InFlightRecord], now_ns: int
    ) -> None:
        """Publish the retractions that waited for a record, and for no other."""
        for in_flight, content_id in self.waiting.pop(done, ()):
            if not in_flight.abandoned:
                self.take(in_flight, content_id, live, now_ns)

    def give_up(self, records: Iterable[InFlightRecord]) -> list[InFlightRecord]:
        """Forget what waits for records that are never finished; return the deletions that are never finished either.

        A deletion may not pass its post, which is judged once more when both are read again.
        """
        waited = [one for each in records for one, _ in self.waiting.pop(each, ())]
        return [one for one in waited if not one.abandoned]

    def _build(self, in_flight: InFlightRecord, content_id: str | None, now_ns: int) -> Outgoing:
        record = in_flight.record
        event = deleted_event(
            record,
            content_id,
            consumed_ms=in_flight.consumed_ns // 1_000_000,
            published_ms=now_ns // 1_000_000,
        )
        key = (content_id or "").encode() if record.key is None else record.key
        self._metrics.retractions.inc()
        return self._outputs.event(in_flight, event, key, now_ns)


def _ahead(
    in_flight: InFlightRecord, content_id: str | None, live: Iterable[InFlightRecord]
) -> InFlightRecord | None:
    """Return the last earlier record of the same post that is in flight, or None."""
    found = None
    for other in live:
        if other.record.offset >= in_flight.record.offset:
            break
        same_key = in_flight.record.key is not None and other.record.key == in_flight.record.key
        if same_key or any(request.post.id == content_id for request in other.requests):
            found = other
    return found
