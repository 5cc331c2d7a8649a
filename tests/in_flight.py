"""Records in flight, made by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_guard.core.kafka_types import Partition
from stream_guard.stream.in_flight import InFlightRecord
from stream_guard.stream.offsets import PartitionOffsets
from stream_guard.stream.tracing.record_trace import RecordTrace
from stream_guard.testing import MemoryRecord

if TYPE_CHECKING:
    from stream_guard.core.kafka_types import Record


def in_flight(
    record: Record | None = None, offsets: PartitionOffsets | None = None, owed: int = 1
) -> InFlightRecord:
    """Return a record that owes this many outputs; by default one of a topic that nobody reads."""
    record = record or MemoryRecord("posts", 0, 0)
    offsets = offsets or PartitionOffsets(Partition(record.topic, record.partition), 1)
    made = InFlightRecord(record, offsets, 0, RecordTrace("", None))
    made.owed = owed
    return made
