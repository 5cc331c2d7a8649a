"""Faults of what lies in the input topic: malformed records, aborted ones, bombs, and retention that overtakes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from stream_guard.stream.breaker.entries import ResetEntry
from stream_guard.stream.breaker.limits import Scope
from tests.soak import posting, reading
from tests.soak.members import now_ms

if TYPE_CHECKING:
    from tests.soak.schedule import Planned
    from tests.soak.stage import Stage

POISON_BURST: Final = 40
ABORTED_RECORDS: Final = 2_000
BOMBS: Final = 3
_ANY_TRIP_MS: Final = 1 << 50


class RecordFaults:
    """Each method is one kind of fault."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._transactions = 0

    async def poison(self, fault: Planned) -> str:
        """Send malformed records, of every kind in turn."""
        partition = self._stage.partition(fault.draw)
        self._stage.poster.poison(partition, POISON_BURST)
        return f"{POISON_BURST} malformed records in partition {partition}"

    async def abort(self, fault: Planned) -> str:
        """Abort a long transaction of a stranger."""
        stage = self._stage
        partition = stage.partition(fault.draw)
        self._transactions += 1
        name = f"long-{self._transactions}"
        await posting.abort_long(
            stage.cluster.bootstrap, stage.posts, partition, ABORTED_RECORDS, name
        )
        return f"{ABORTED_RECORDS} records of a transaction in partition {partition}"

    async def bomb(self, fault: Planned) -> str:
        """Send a few kB that are far more when decompressed."""
        stage = self._stage
        partition = stage.partition(fault.draw)
        await posting.send_bombs(stage.cluster.bootstrap, stage.posts, partition, BOMBS)
        return f"{BOMBS} records of {posting.BOMB_BYTES >> 20} MiB in partition {partition}"

    async def trip(self, fault: Planned) -> str:
        """Close the breaker of each group, so that it is about to open again."""
        del fault
        for group in self._stage.groups:
            await posting.send_one(
                self._stage.cluster.bootstrap,
                group.environment["STREAM_GUARD_KAFKA__BREAKER_TOPIC"],
                *ResetEntry(Scope("hour"), now_ms(), _ANY_TRIP_MS).encode(),
            )
        return f"{len(self._stage.groups)} breakers"

    async def overtake(self, fault: Planned) -> str:
        """Delete what no frozen consumer has read yet, with everything before it."""
        stage = self._stage
        partition = stage.partition(fault.draw)
        members = [member for group in stage.groups for member in group.members]
        frozen = [member for member in members if member.freeze()]
        stage.strike()
        try:
            await asyncio.sleep(fault.hold_s)
            inputs = await reading.read_partition(stage.cluster.bootstrap, stage.posts, partition)
            before = max((fact.offset for fact in inputs), default=-1) + 1
            deleted_ms = await stage.cluster.delete_records(stage.posts, partition, before)
            stage.deleted.extend(fact._replace(deleted_ms=deleted_ms) for fact in inputs)
        finally:
            for member in frozen:
                member.thaw()
        return f"{len(inputs)} records of partition {partition}"
