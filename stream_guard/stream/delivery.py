"""The two delivery modes, behind one port: how a partition's position is found and how it is committed.

At least once: positions are read together, outputs are produced as they come, and positions are committed on a timer.
Exactly once: each partition is claimed first, and its outputs and its position are written in one transaction.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

import structlog

from stream_guard.core.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from stream_guard.core.kafka_types import Partition
    from stream_guard.settings import DeliverySettings
    from stream_guard.stream.offsets import PartitionOffsets
    from stream_guard.stream.ports import Publisher, Source, Transactions
    from stream_guard.telemetry.metrics import Metrics

_log = structlog.get_logger(__name__)


class Delivery(Protocol):
    """A delivery mode.

    Attributes:
        commits: successful commits by :meth:`commit`.
        in_order: whether a record's outputs wait for those of all records ahead of it in its partition.
    """

    commits: int
    in_order: bool

    @property
    def publisher(self) -> Publisher:
        """Where outputs go."""

    def listen(self, ended: Callable[[PartitionOffsets, str], None]) -> None:
        """Have ``ended`` called, with the epoch and the cause, when an epoch must be read again."""

    async def find_positions(
        self, partitions: Collection[Partition], cause: str, found: Callable[[Partition, int], None]
    ) -> None:
        """Make sure that no earlier owner moves a position any more, and call ``found`` with each position.

        Args:
            partitions: which.
            cause: ``rebalance``, ``reset``, or the cause with which ``ended`` was called.
            found: called once for each partition, in any order.

        Raises:
            StreamGuardError: a position cannot be read in time, or never.
        """

    def begin(self, offsets: PartitionOffsets) -> None:
        """Begin an epoch: the position was found, and the partition is read from there."""

    def hurry(self) -> None:
        """Wait for no further outputs before writing: a drain is under way."""

    async def commit(self, partitions: Iterable[PartitionOffsets]) -> None:
        """Commit what is finished; a commit that fails is logged, and nothing is lost."""

    async def commit_regularly(self, partitions: Callable[[], Iterable[PartitionOffsets]]) -> None:
        """Commit on a timer until cancelled."""

    async def release(self, partitions: Iterable[Partition]) -> None:
        """Give these partitions up."""


class AtLeastOnce:
    """A :class:`Delivery`: outputs first, positions after their acknowledgement.

    Args:
        source, publisher: the parts.
        delivery: the interval of commits.
        metrics: where commits are counted.
    """

    in_order = False

    def __init__(
        self, source: Source, publisher: Publisher, delivery: DeliverySettings, metrics: Metrics
    ) -> None:
        self.commits = 0
        self._source = source
        self._publisher = publisher
        self._interval_s = delivery.commit_interval_ms / 1_000
        self._metrics = metrics
        self._committing = asyncio.Lock()

    @property
    def publisher(self) -> Publisher:
        """See :class:`Delivery`."""
        return self._publisher

    def listen(self, ended: Callable[[PartitionOffsets, str], None]) -> None:
        """Do nothing: no commit ends an epoch."""

    async def find_positions(
        self, partitions: Collection[Partition], cause: str, found: Callable[[Partition, int], None]
    ) -> None:
        """Read them in one request."""
        del cause
        for partition, position in (await self._source.committed(partitions)).items():
            found(partition, position)

    def begin(self, offsets: PartitionOffsets) -> None:
        """Do nothing: an epoch needs no claim."""

    def hurry(self) -> None:
        """Do nothing: outputs never wait."""

    async def commit(self, partitions: Iterable[PartitionOffsets]) -> None:
        """See :meth:`Delivery.commit`."""
        async with self._committing:  # one at a time, so that positions never go back
            due = [
                (offsets, position)
                for offsets in partitions
                if (position := offsets.committable()) is not None
            ]
            if not due:
                return
            try:
                await self._source.commit({offsets.partition: at for offsets, at in due})
            except BrokerError as error:
                # Nothing is lost: the position stays, and is committed next time or read again.
                self._metrics.commits.labels("failed").inc()
                _log.warning("commit_failed", error=str(error))
                return
            self._metrics.commits.labels("ok").inc()
            self.commits += 1
            for offsets, position in due:
                offsets.committed = position

    async def commit_regularly(self, partitions: Callable[[], Iterable[PartitionOffsets]]) -> None:
        """Commit every ``delivery.commit_interval_ms``."""
        while True:
            await asyncio.sleep(self._interval_s)
            await self.commit(partitions())

    async def release(self, partitions: Iterable[Partition]) -> None:
        """Do nothing: the group's next owner needs no permission."""


class ExactlyOnce:
    """A :class:`Delivery`: outputs and position in one transaction.

    Args:
        source, transactions: the parts.
    """

    in_order = True

    def __init__(self, source: Source, transactions: Transactions) -> None:
        self.commits = 0
        self._source = source
        self._transactions = transactions

    @property
    def publisher(self) -> Publisher:
        """See :class:`Delivery`."""
        return self._transactions

    def listen(self, ended: Callable[[PartitionOffsets, str], None]) -> None:
        """A transaction that failed ends its epoch."""
        self._transactions.listen(ended)

    async def find_positions(
        self, partitions: Collection[Partition], cause: str, found: Callable[[Partition, int], None]
    ) -> None:
        """Claim each partition, then read its position.

        The claim aborts a transaction that a dead owner left open. Read before the claim, the position would not be
        known until that transaction's timeout.
        """
        if cause == "reset":
            await self._transactions.release(partitions)

        async def find(partition: Partition) -> None:
            await self._transactions.claim(partition, cause)
            found(partition, (await self._source.committed([partition]))[partition])

        try:
            async with asyncio.TaskGroup() as group:
                for partition in partitions:
                    group.create_task(find(partition))
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None  # the others were cancelled, or failed alike

    def begin(self, offsets: PartitionOffsets) -> None:
        """Open the partition's epoch for transactions."""
        self._transactions.begin(offsets)

    def hurry(self) -> None:
        """See :meth:`Delivery.hurry`."""
        self._transactions.hurry()

    async def commit(self, partitions: Iterable[PartitionOffsets]) -> None:
        """Do nothing: positions are written with the outputs."""

    async def commit_regularly(self, partitions: Callable[[], Iterable[PartitionOffsets]]) -> None:
        """Wait until cancelled: nothing is committed here."""
        del partitions
        await asyncio.Event().wait()

    async def release(self, partitions: Iterable[Partition]) -> None:
        """End the partitions' epochs and close their producers."""
        await self._transactions.release(partitions)
