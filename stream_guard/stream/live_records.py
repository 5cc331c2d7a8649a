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

    def oldest_written_ns(self, partition: Partition) -> int | None:
        """Return when a partition's oldest unfinished record was written, Unix time in ns: by its own timestamp."""
        in_flight = self._first(partition)
        if in_flight is None:
            return None
        written_ns = in_flight.record.timestamp * 1_000_000
        return min(written_ns, in_flight.consumed_ns) if written_ns > 0 else in_flight.consumed_ns

    def _first(self, partition: Partition) -> InFlightRecord | None:
        return next(iter(self.get(partition, {}).values()), None)
