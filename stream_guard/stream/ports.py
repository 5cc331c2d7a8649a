"""The edges of the program as Protocols: where records come from, who judges, where verdicts go.

The core and the pipeline know these and nothing behind them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from stream_guard.core.kafka_types import Partition, Record
    from stream_guard.stream.in_flight import Outgoing
    from stream_guard.stream.offsets import PartitionOffsets


class RebalanceListener(Protocol):
    """Told by a source, on its own task, what it gains and what it is about to lose."""

    async def on_assigned(self, partitions: Sequence[Partition]) -> None: ...
    async def on_revoked(self, partitions: Sequence[Partition]) -> None:
        """Return once what can be finished is; after it the partitions are another member's."""


NO_BOUND: Final = 1 << 62
"""More bytes than any poll takes."""


class Source(Protocol):
    """Records in, positions committed back. One task polls; no call is cancelled inside."""

    async def start(self, listener: RebalanceListener) -> None:
        """Join the group.

        Raises:
            BrokerError: the broker cannot be reached, or a topic is missing.
        """

    async def poll(
        self,
        partitions: Sequence[Partition],
        *,
        records_max: int,
        timeout_ms: int,
        bytes_max: int = NO_BOUND,
    ) -> Mapping[Partition, Sequence[Record]]:
        """Records of these partitions, in offset order, as soon as there are any.

        A poll ends at ``records_max`` records in all. It also ends at ``bytes_max`` bytes of values, but takes at
        least one record of each partition that has any.

        After an assignment, a partition yields records once :meth:`seek` has said from where.

        With no partitions: nothing is taken; the membership is kept and the time waited out.
        """

    async def commit(self, positions: Mapping[Partition, int]) -> None:
        """Commit next-offsets-to-read.

        Raises:
            BrokerError: it did not succeed in time, or the group has moved on.
        """

    def assigned(self) -> Sequence[Partition]: ...

    def ends(self) -> Mapping[Partition, int]:
        """The offset after the newest record of each assigned partition, as of the last fetch, where one is known."""

    def positions(self) -> Mapping[Partition, int]:
        """The next offset that :meth:`poll` reads, of each partition that was sought.

        It passes offsets without records: transaction markers, aborted records, and compacted ones.
        """

    async def committed(self, partitions: Collection[Partition]) -> Mapping[Partition, int]:
        """Return where reading begins: the committed position, with no transaction open on it, or the log's start.

        Raises:
            BrokerError: it cannot be found out in time.
        """

    def seek(self, partition: Partition, position: int) -> None:
        """Read on from here; called between polls, and without effect where the partition is not ours any more."""

    async def stop(self) -> None: ...


class Publisher(Protocol):
    """Records out."""

    async def start(self) -> None:
        """Raises BrokerError: the broker cannot be reached."""

    def publish(
        self, outgoing: Sequence[Outgoing], acknowledged: Callable[[Sequence[Outgoing]], None]
    ) -> None:
        """Queue records for sending; each is later passed, once, to ``acknowledged``, in lists.

        Sending is retried, with the producer rebuilt where need be, until it succeeds or
        :meth:`wait_failed` returns; nothing is dropped.
        """

    async def flush(self) -> None:
        """Return once everything queued has been acknowledged."""

    async def wait_failed(self) -> BaseException:
        """Return the error, once there is one after which nothing more will be sent."""

    async def stop(self) -> None: ...


class Transactions(Publisher, Protocol):
    """A publisher that writes what a partition's records owe and its position together, or neither.

    A partition is *claimed*, which fences everyone who claimed it before, then its committed position is read, and
    then an epoch *begins*. When a transaction is in doubt the claim is void, and the partition's epoch is over.
    """

    def listen(self, doubted: Callable[[PartitionOffsets, str], None]) -> None:
        """Have ``doubted`` called, with the epoch and the cause, when an epoch can no longer be written."""

    async def claim(self, partition: Partition, cause: str) -> None:
        """Take a partition over from its earlier owner; retried, with pauses, until it succeeds.

        Args:
            partition: which.
            cause: ``rebalance`` after an assignment, or what ``doubted`` was told.

        Raises:
            StreamGuardError: it does not succeed in time, or never will.
        """

    def begin(self, offsets: PartitionOffsets) -> None:
        """Write what the records of this epoch owe; its partition has been claimed."""

    def hurry(self) -> None:
        """Let nothing wait for company any more, in the epochs that are open: a drain is under way."""

    async def release(self, partitions: Iterable[Partition]) -> None:
        """End the epochs of these partitions and give them up; unwritten outputs are dropped."""


class Session(Protocol):
    """The right to write for one partition, until somebody else claims it."""

    async def write(self, outgoing: Sequence[Outgoing], position: int) -> None:
        """Write these records and commit the partition's position, in one transaction.

        Raises:
            DoubtError: it was not written, or nobody knows; the session is of no use any more.
            BrokerError: it never can be.
        """

    async def close(self) -> None:
        """Abort what is open, within a deadline; never raises."""


class Transactor(Protocol):
    """Opens sessions."""

    async def claim(self, partition: Partition) -> Session:
        """Fence the earlier owner of the partition, and abort the transaction that it left open.

        Raises:
            DoubtError: not this time.
            StreamGuardError: never, as things are set up.
        """


class BreakerLog(Protocol):
    """The breaker's topic: one log, in one order, that every replica writes and reads."""

    async def start(
        self, received: Callable[[Sequence[tuple[int, bytes | None, bytes | None]]], None]
    ) -> None:
        """Read the log to its end and on from there; ``received`` gets offset, key and value, in order.

        Raises:
            BrokerError: the topic cannot be used, or its end is not reached in time.
            SettingsError: the topic would lose counts.
        """

    async def append(self, pairs: Sequence[tuple[bytes, bytes | None]]) -> None:
        """Write keys and values in this order; returns after their acknowledgement, and retries until then.

        Raises:
            BrokerError: the topic never takes them.
        """

    async def wait_failed(self) -> BaseException:
        """Return the error, once the log can be read no more."""

    async def close(self, last: Sequence[tuple[bytes, bytes | None]]) -> None:
        """Write these last records, if that succeeds within a deadline, and close; never raises."""
