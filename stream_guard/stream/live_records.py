"""The records in flight, by partition and offset. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stream_guard.core.kafka_types import Partition
    from stream_guard.stream.in_flight import InFlightRecord


class LiveRecords(dict["Partition", "dict[int, InFlightRecord]"]):
    """Unfinished records: of each partition by offset, in offset order."""

    def unfinished(self, partitions: Iterable[Partition]) -> int:
        """Return how many records of these partitions still owe something."""
        return sum(len(self.get(partition, ())) for partition in partitions)

    def oldest(self, partition: Partition) -> tuple[int, int] | None:
        """Return the offset of a partition's oldest unfinished record, and when it was read: Unix time in ns."""
        in_flight = self._first(partition)
        return None if in_flight is None else (in_flight.record.offset, in_flight.consumed_ns)

    def oldest_trace_id(self, partition: Partition) -> str | None:
        """Return the trace id of a partition's oldest unfinished record, whether it is traced or not."""
        in_flight = self._first(partition)
        return None if in_flight is None else in_flight.trace.traceparent[3:35]

    def is_patient(self, partition: Partition) -> bool:
        """Return whether a partition's oldest unfinished record waits for all live posts, by any of its lanes."""
        in_flight = self._first(partition)
        requests = [] if in_flight is None else in_flight.requests
        return any(one.lane is not None and one.lane.backfill for one in requests)

    def delayed(self, partitions: Iterable[Partition], *, behind: bool) -> list[InFlightRecord]:
        """Return the records of these partitions that a tenant's quota holds back now.

        Args:
            partitions: which.
            behind: whether those behind them in their partition are wanted as well.
        """
        found: list[InFlightRecord] = []
        for partition in partitions:
            waits = False
            for in_flight in self.get(partition, {}).values():
                own = any(request.delayed for request in in_flight.requests)
                waits = own or (waits and behind)
                if waits:
                    found.append(in_flight)
        return found

    def oldest_written_ns(self, partition: Partition) -> int | None:
        """Return when a partition's oldest unfinished record was written, Unix time in ns: by its own timestamp."""
        in_flight = self._first(partition)
        if in_flight is None:
            return None
        written_ns = in_flight.record.timestamp * 1_000_000
        return min(written_ns, in_flight.consumed_ns) if written_ns > 0 else in_flight.consumed_ns

    def _first(self, partition: Partition) -> InFlightRecord | None:
        return next(iter(self.get(partition, {}).values()), None)
