"""The base of sources that stand before another one: each call is passed on, unless a subclass says otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_guard.stream.ports import NO_BOUND

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from stream_guard.core.kafka_types import Partition, Record
    from stream_guard.stream.ports import RebalanceListener, Source

__all__ = ["WrappingSource"]


class WrappingSource:
    """A :class:`stream_guard.stream.ports.Source` before another one.

    Args:
        inner: the source.
    """

    def __init__(self, inner: Source) -> None:
        self._inner = inner

    async def start(self, listener: RebalanceListener) -> None:
        """Join the group."""
        await self._inner.start(listener)

    async def poll(
        self,
        partitions: Sequence[Partition],
        *,
        records_max: int,
        timeout_ms: int,
        bytes_max: int = NO_BOUND,
    ) -> Mapping[Partition, Sequence[Record]]:
        """Return records of these partitions."""
        return await self._inner.poll(
            partitions, records_max=records_max, timeout_ms=timeout_ms, bytes_max=bytes_max
        )

    async def commit(self, positions: Mapping[Partition, int]) -> None:
        """Commit positions."""
        await self._inner.commit(positions)

    def assigned(self) -> Sequence[Partition]:
        """Return the partitions that are ours now."""
        return self._inner.assigned()

    def ends(self) -> Mapping[Partition, int]:
        """Return where partitions end."""
        return self._inner.ends()

    def positions(self) -> Mapping[Partition, int]:
        """Return the next offsets that :meth:`poll` hands out."""
        return self._inner.positions()

    async def committed(self, partitions: Collection[Partition]) -> Mapping[Partition, int]:
        """Return where reading begins."""
        return await self._inner.committed(partitions)

    def seek(self, partition: Partition, position: int) -> None:
        """Read on from here."""
        self._inner.seek(partition, position)

    async def stop(self) -> None:
        """Leave the group."""
        await self._inner.stop()
