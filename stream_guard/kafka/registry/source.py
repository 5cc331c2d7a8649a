"""A source that hands out a record only when its schema is in memory.

Records behind an unknown schema are held, and their partition is not polled, until the schema has come. So the order
of a partition stays, its position does not pass what is held, and no other partition waits.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from stream_guard.stream.ports import NO_BOUND
from stream_guard.stream.wrapping_source import WrappingSource

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_guard.core.kafka_types import Partition, Record
    from stream_guard.kafka.registry.schemas import Schemas
    from stream_guard.stream.ports import Source

__all__ = ["SchemaSource"]

_LOOK_AGAIN_MS: Final = 50
"""Longest poll of the other partitions while one waits for its schema."""


class SchemaSource(WrappingSource):
    """A source before another one.

    Args:
        inner: the source.
        schemas: the schemas in memory.
    """

    def __init__(self, inner: Source, schemas: Schemas) -> None:
        super().__init__(inner)
        self._schemas = schemas
        self._held: dict[Partition, Sequence[Record]] = {}

    async def poll(
        self,
        partitions: Sequence[Partition],
        *,
        records_max: int,
        timeout_ms: int,
        bytes_max: int = NO_BOUND,
    ) -> Mapping[Partition, Sequence[Record]]:
        """Return records whose schemas are in memory."""
        self._schemas.forget_errors()
        owned = set(self._inner.assigned())
        for partition in [each for each in self._held if each not in owned]:
            del self._held[partition]
        waiting = [each for each in partitions if each in self._held]
        free = [each for each in partitions if each not in self._held]
        releasable = self._releasable(waiting)
        if waiting and (releasable or not free):
            if not releasable:
                await self._wait(timeout_ms)
            # It takes nothing, and counts as a poll. What comes after it is not interrupted, so no schema is dropped.
            await self._inner.poll((), records_max=1, timeout_ms=0)
            ready = self._release(waiting, records_max)
        else:
            if waiting:
                timeout_ms = min(timeout_ms, _LOOK_AGAIN_MS)
            polled = await self._inner.poll(
                free,
                records_max=records_max,
                timeout_ms=timeout_ms,
                bytes_max=max(1, bytes_max - self._held_bytes()),
            )
            ready = {each: self._take(each, records) for each, records in polled.items()}
        self._schemas.show_waiting(f"{each.topic}/{each.partition}" for each in self._held)
        return {each: records for each, records in ready.items() if records}

    def _releasable(self, partitions: Sequence[Partition]) -> bool:
        """Return whether any first held record has its schema; ask for the schemas of the others."""
        releasable = False
        for partition in partitions:
            first = self._held[partition][:1]
            if self._schemas.first_unknown(first) is None:
                releasable = True
            else:
                self._schemas.request(first)
        return releasable

    def _release(
        self, partitions: Sequence[Partition], records_max: int
    ) -> dict[Partition, Sequence[Record]]:
        """Return held records whose schemas have come, in order."""
        ready: dict[Partition, Sequence[Record]] = {}
        for partition in partitions:
            if partition in self._held and records_max > 0:
                records = self._held.pop(partition)
                ready[partition] = self._take(partition, records, records_max)
                records_max -= len(ready[partition])
        return ready

    def _take(
        self, partition: Partition, records: Sequence[Record], records_max: int | None = None
    ) -> Sequence[Record]:
        """Return the records before the first unknown schema; hold the others, and fetch what they need."""
        end = self._schemas.first_unknown(records)
        if end is not None:
            self._schemas.request(records[end:])
        if records_max is not None and records_max < (len(records) if end is None else end):
            end = records_max
        if end is None:
            return records
        self._held[partition] = records[end:]
        return records[:end]

    def _held_bytes(self) -> int:
        return sum(len(one.value or b"") for held in self._held.values() for one in held)

    async def _wait(self, timeout_ms: int) -> None:
        changed = self._schemas.changed
        changed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_ms / 1_000):
                await changed.wait()

    def positions(self) -> Mapping[Partition, int]:
        """Return the next offsets that :meth:`poll` hands out: of held records, the first."""
        held = {partition: records[0].offset for partition, records in self._held.items()}
        return {**super().positions(), **held}

    def seek(self, partition: Partition, position: int) -> None:
        """Read on from here; held records are read again."""
        self._held.pop(partition, None)
        super().seek(partition, position)

    async def stop(self) -> None:
        """Leave the group, and stop fetching."""
        await self._schemas.close()
        await super().stop()
