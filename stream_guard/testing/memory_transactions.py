"""Transactions in memory, with faults on request, for tests of exactly-once mode.

A transaction is written whole or not at all, and only under the latest claim of its partition.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from stream_guard.core.errors import DoubtError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.core.kafka_types import Partition
    from stream_guard.stream.in_flight import Outgoing
    from stream_guard.testing.memory import MemoryBroker


class MemoryTransactor:
    """A :class:`stream_guard.stream.ports.Transactor` on a :class:`MemoryBroker`, with faults on request.

    Args:
        broker: where to.
        group_id: the group whose positions move.

    Attributes:
        faults: what happens to the next writes, in order; an empty string is a write without a fault. ``lost``: it
            fails and is not written; ``unknown``: it is written and still fails.
        turns: turns of the event loop that a request takes; its answer takes as many.
        writes: how many writes were requested.
    """

    def __init__(self, broker: MemoryBroker, group_id: str = "stream-guard") -> None:
        self.faults: list[str] = []
        self.turns = 1
        self.writes = 0
        self._broker = broker
        self._group_id = group_id

    async def claim(self, partition: Partition) -> MemorySession:
        """Fence the previous claimant of the partition."""
        await self.travel()
        claim = self._broker.claim(self._group_id, partition)
        await self.travel()
        return MemorySession(self, partition, claim)

    async def travel(self) -> None:
        """Return after so many turns."""
        for _ in range(self.turns):
            await asyncio.sleep(0)

    def write(
        self, partition: Partition, claim: int, outgoing: Sequence[Outgoing], position: int
    ) -> None:
        """Write under a claim, or fail as requested. Raises DoubtError."""
        self.writes += 1
        fault = self.faults.pop(0) if self.faults else ""
        if fault != "lost":
            self._broker.write(self._group_id, partition, claim, outgoing, position)
        if fault:
            raise DoubtError("timeout", f"{partition}: {fault}")


class MemorySession:
    """A :class:`stream_guard.stream.ports.Session` of a :class:`MemoryTransactor`."""

    def __init__(self, transactor: MemoryTransactor, partition: Partition, claim: int) -> None:
        self._transactor = transactor
        self._partition = partition
        self._claim = claim

    async def write(self, outgoing: Sequence[Outgoing], position: int) -> None:
        """Write; both the request and its answer take their time."""
        await self._transactor.travel()
        self._transactor.write(self._partition, self._claim, outgoing, position)
        await self._transactor.travel()

    async def close(self) -> None:
        """Do nothing: nothing is ever open between two turns."""
