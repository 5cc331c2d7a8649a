"""What is in flight, and so which partitions may be polled. Pure.

Bounds by records, bytes and estimated tokens, over all and per partition, are checked before a poll. One poll may
overshoot the bytes by one record of each partition, and the tokens by the records that it was allowed to take.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stream_guard.core.kafka_types import Partition, Record
    from stream_guard.settings import BatchingSettings
    from stream_guard.stream.offsets import PartitionOffsets

# English text takes about four bytes a token; an estimate will do, since the engine's own limit is exact.
BYTES_PER_TOKEN: Final = 4


def record_bytes(record: Record) -> int:
    """Return what a record takes in memory, in bytes; what Python takes beside its bytes is estimated."""
    size_bytes = 200 + len(record.value or b"") + len(record.key or b"")
    for name, value in record.headers:
        size_bytes += 100 + len(name) + len(value or b"")
    return size_bytes


class Admission:
    """Counts what is in flight, and says what may be polled.

    Attributes:
        records, bytes, tokens: read and not finished.
    """

    __slots__ = ("_settings", "bytes", "records", "tokens")

    def __init__(self, settings: BatchingSettings) -> None:
        self._settings = settings
        self.records = 0
        self.bytes = 0
        self.tokens = 0

    def enter(self, size_bytes: int, tokens: int) -> None:
        """Count a record in."""
        self.records += 1
        self.bytes += size_bytes
        self.tokens += tokens

    def leave(self, size_bytes: int, tokens: int) -> None:
        """Count a record out."""
        self.records -= 1
        self.bytes -= size_bytes
        self.tokens -= tokens
        assert self.records >= 0, "a record left twice"

    def room(self) -> int:
        """Return how many records the next poll may take; 0 when full."""
        limits = self._settings
        if self.bytes >= limits.in_flight_bytes_max or self.tokens >= limits.in_flight_tokens_max:
            return 0
        return max(0, min(limits.poll_records_max, limits.in_flight_records_max - self.records))

    def is_crowded(self) -> bool:
        """Return whether half of a limit is used up."""
        limits = self._settings
        return (
            2 * self.records >= limits.in_flight_records_max
            or 2 * self.bytes >= limits.in_flight_bytes_max
            or 2 * self.tokens >= limits.in_flight_tokens_max
        )

    def room_bytes(self) -> int:
        """Return how many bytes the next poll may take, at least one."""
        return max(1, self._settings.in_flight_bytes_max - self.bytes)

    def pollable(self, partitions: Iterable[PartitionOffsets]) -> list[Partition]:
        """Return the partitions that have room of their own."""
        limits = self._settings
        return [
            offsets.partition
            for offsets in partitions
            if not offsets.revoked
            and offsets.unfinished < limits.partition_in_flight_max
            and offsets.span < limits.partition_span_max
        ]
