"""Kafka in memory: a broker and a source for tests that need no guarantee of a real one.

They keep the contract of :mod:`stream_guard.stream.ports` - order per partition, groups, committed positions, one
acknowledgement for each record - and the same suite of tests runs over them and over a real broker. What they must
never do: stand in for a real broker where a guarantee across a crash is claimed. Nothing here opens a file or a
socket; everything lives on one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stream_guard.core.errors import BrokerError, DoubtError
from stream_guard.core.kafka_types import Partition
from stream_guard.stream.ports import NO_BOUND

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from stream_guard.core.kafka_types import Record
    from stream_guard.stream.in_flight import Outgoing
    from stream_guard.stream.ports import RebalanceListener


@dataclass(slots=True, frozen=True)
class MemoryRecord:
    """A :class:`stream_guard.core.kafka_types.Record`; ``timestamp`` is Unix time in ms."""

    topic: str
    partition: int
    offset: int
    timestamp: int = 0
    key: bytes | None = None
    value: bytes | None = None
    headers: list[tuple[str, bytes]] = field(default_factory=list)


class _Log:
    """One partition: its records by ascending offset, and the offset that comes next."""

    __slots__ = ("end", "records")

    def __init__(self) -> None:
        self.records: list[MemoryRecord] = []
        self.end = 0


class MemoryBroker:
    """Topics, partitions and groups in memory.

    Topics have to be created before they are written or read, as on a broker that a platform runs. Equal keys go to
    one partition, but not always to Kafka's choice.
    """

    def __init__(self) -> None:
        self._topics: dict[str, list[_Log]] = {}
        self._groups: dict[str, _Group] = {}
        self._keyless: Counter[str] = Counter()
        self._claims: Counter[tuple[str, Partition]] = Counter()
        self._waiting: set[asyncio.Event] = set()

    def create_topics(self, *names: str, partitions: int = 1) -> None:
        """Create topics with this many partitions; one that exists already is left as it is."""
        for name in names:
            self._topics.setdefault(name, [_Log() for _ in range(partitions)])

    def partitions(self, topic: str) -> list[Partition]:
        """Return a topic's partitions.

        Raises:
            BrokerError: there is no such topic.
        """
        return [Partition(topic, number) for number in range(len(self._logs(topic)))]

    def produce(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
        partition: int | None = None,
        timestamp_ms: int = 0,
    ) -> MemoryRecord:
        """Append a record and return it, with its offset.

        Args:
            topic: where to.
            value: its value; None is a tombstone.
            key: its key.
            headers: its headers.
            partition: by default that of the key; of records without a key, each in turn.
            timestamp_ms: Unix time in ms.

        Raises:
            BrokerError: there is no such topic.
        """
        logs = self._logs(topic)
        if partition is None:
            number = self._keyless[topic] if key is None else zlib.crc32(key)
            self._keyless[topic] += key is None
            partition = number % len(logs)
        log = logs[partition]
        record = MemoryRecord(topic, partition, log.end, timestamp_ms, key, value, [*headers])
        log.records.append(record)
        log.end += 1
        self._wake()
        return record

    def skip(self, partition: Partition, count: int) -> None:
        """Leave a gap of this many offsets, as compaction and transaction markers do."""
        self._logs(partition.topic)[partition.partition].end += count

    def records(self, topic: str, partition: int | None = None) -> list[MemoryRecord]:
        """Return a topic's records, or those of one partition, in offset order within each partition.

        Raises:
            BrokerError: there is no such topic.
        """
        logs = self._logs(topic)
        chosen = logs if partition is None else [logs[partition]]
        return [record for log in chosen for record in log.records]

    def committed(self, group_id: str) -> dict[Partition, int]:
        """Return a group's committed positions: the next offset to read, by partition."""
        group = self._groups.get(group_id)
        return {} if group is None else dict(group.positions)

    async def rebalance(self, group_id: str) -> None:
        """Take all partitions from a group's members and hand them out again, as when one joins or leaves."""
        await self._group(group_id).rebalance()

    def claim(self, group_id: str, partition: Partition) -> int:
        """Take a partition over for transactions, and return the claim's number: an earlier one writes no more."""
        self._claims[group_id, partition] += 1
        return self._claims[group_id, partition]

    def write(
        self,
        group_id: str,
        partition: Partition,
        claim: int,
        outgoing: Sequence[Outgoing],
        position: int,
    ) -> None:
        """Append records and move the group's position of a partition: both, or neither.

        Raises:
            DoubtError: the partition was claimed again.
            BrokerError: there is no such topic.
        """
        if claim != self._claims[group_id, partition]:
            raise DoubtError("fenced", f"{partition} was claimed again")
        for sent in outgoing:
            self._logs(sent.topic)
        for sent in outgoing:
            self.produce(sent.topic, sent.value, key=sent.key, headers=sent.headers)
        self._group(group_id).positions[partition] = position

    def _group(self, group_id: str) -> _Group:
        return self._groups.setdefault(group_id, _Group(self))

    def _logs(self, topic: str) -> list[_Log]:
        try:
            return self._topics[topic]
        except KeyError:
            known = ", ".join(sorted(self._topics)) or "none"
            raise BrokerError(f"there is no topic {topic!r} (known: {known})") from None

    def _read(
        self, partition: Partition, position: int, count: int
    ) -> tuple[list[MemoryRecord], int]:
        """Return records from a position on, and the position after them and after the gap behind the last."""
        log = self._logs(partition.topic)[partition.partition]
        if position >= log.end:
            return [], position
        ahead = [record for record in log.records if record.offset >= position]
        taken = ahead[:count]
        return taken, taken[-1].offset + 1 if len(taken) < len(ahead) else log.end

    def _wake(self) -> None:
        for event in self._waiting:
            event.set()

    async def _changed(self, timeout_s: float) -> None:
        """Return after the next change, or the time-out."""
        event = asyncio.Event()
        self._waiting.add(event)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await event.wait()
        finally:
            self._waiting.discard(event)


class _Group:
    """A consumer group: its members in the order in which they joined, and its committed positions."""

    def __init__(self, broker: MemoryBroker) -> None:
        self.broker = broker
        self.members: list[MemorySource] = []
        self.positions: dict[Partition, int] = {}
        self._changing = asyncio.Lock()

    async def join(self, member: MemorySource) -> None:
        self.members.append(member)
        await self.rebalance()

    async def leave(self, member: MemorySource) -> None:
        if member in self.members:
            self.members.remove(member)
            await member._lose()  # noqa: SLF001 - one mechanism in two classes
            await self.rebalance()

    async def rebalance(self) -> None:
        """Revoke everything, then share the topics' partitions out in turn, as Kafka's round robin does."""
        async with self._changing:
            for member in self.members:
                await member._lose()  # noqa: SLF001
            shares: list[list[Partition]] = [[] for _ in self.members]
            for topic in sorted({topic for member in self.members for topic in member.topics}):
                takers = [n for n, member in enumerate(self.members) if topic in member.topics]
                for partition in self.broker.partitions(topic):
                    shares[takers[partition.partition % len(takers)]].append(partition)
            for member, share in zip(self.members, shares, strict=True):
                await member._gain(tuple(share))  # noqa: SLF001


class MemorySource:
    """A :class:`stream_guard.stream.ports.Source`: one member of a group on a :class:`MemoryBroker`.

    Args:
        broker: what to read.
        topics: names of topics, which must exist.
        group_id: the group.
    """

    def __init__(
        self, broker: MemoryBroker, topics: Sequence[str], group_id: str = "stream-guard"
    ) -> None:
        self.topics = tuple(topics)
        self._broker = broker
        self._group = broker._group(group_id)  # noqa: SLF001 - one mechanism in two classes
        self._listener: RebalanceListener | None = None
        self._assigned: tuple[Partition, ...] = ()
        self._owned: tuple[Partition, ...] = ()  # still ours to commit while the listener drains
        self._next: dict[Partition, int] = {}
        self._generation = 0

    async def start(self, listener: RebalanceListener) -> None:
        """Join the group. Raises BrokerError: a topic is missing."""
        for topic in self.topics:
            self._broker.partitions(topic)
        self._listener = listener
        await self._group.join(self)

    async def poll(
        self,
        partitions: Sequence[Partition],
        *,
        records_max: int,
        timeout_ms: int,
        bytes_max: int = NO_BOUND,
    ) -> Mapping[Partition, Sequence[Record]]:
        """Return records as soon as there are any; see :meth:`stream_guard.stream.ports.Source.poll`."""
        generation = self._generation
        taken = self._take(partitions, records_max, bytes_max)
        if not taken and timeout_ms:
            loop = asyncio.get_running_loop()
            deadline_s = loop.time() + timeout_ms / 1_000
            while not taken and (left_s := deadline_s - loop.time()) > 0:
                await self._broker._changed(left_s)  # noqa: SLF001
                if generation != self._generation:
                    return {}
                taken = self._take(partitions, records_max, bytes_max)
        return taken

    async def commit(self, positions: Mapping[Partition, int]) -> None:
        """Commit positions. Raises BrokerError: a partition is another member's now."""
        for partition in positions:
            if partition not in self._owned:
                raise BrokerError(f"a commit failed: {partition} is not assigned to this member")
        self._group.positions.update(positions)

    def assigned(self) -> Sequence[Partition]:
        """Return the partitions that are ours now."""
        return self._assigned

    def ends(self) -> Mapping[Partition, int]:
        """Return where our partitions end."""
        logs = self._broker._logs  # noqa: SLF001 - one mechanism in two classes
        return {p: logs(p.topic)[p.partition].end for p in self._assigned}

    def positions(self) -> Mapping[Partition, int]:
        """Return the next offsets to read of the partitions that were sought."""
        return self._next

    async def committed(self, partitions: Collection[Partition]) -> Mapping[Partition, int]:
        """Return where reading begins."""
        return {partition: self._group.positions.get(partition, 0) for partition in partitions}

    def seek(self, partition: Partition, position: int) -> None:
        """Read on from here, where the partition is ours."""
        if partition in self._assigned:
            self._next[partition] = position

    async def stop(self) -> None:
        """Leave the group; its other members share this member's partitions."""
        await self._group.leave(self)

    def _take(
        self, partitions: Sequence[Partition], records_max: int, bytes_max: int
    ) -> dict[Partition, list[MemoryRecord]]:
        taken: dict[Partition, list[MemoryRecord]] = {}
        room = records_max
        for partition in partitions:
            if room <= 0 or partition not in self._next:
                continue
            records, self._next[partition] = self._broker._read(  # noqa: SLF001
                partition, self._next[partition], room
            )
            if records:
                for count, record in enumerate(records, 1):
                    bytes_max -= len(record.value or b"")
                    if bytes_max <= 0 and count < len(records):
                        self._next[partition] = records[count].offset
                        del records[count:]
                        break
                taken[partition] = records
                room -= len(records)
        return taken

    async def _lose(self) -> None:
        self._generation += 1
        lost, self._assigned = self._assigned, ()
        self._next = {}
        self._broker._wake()  # noqa: SLF001
        if lost and self._listener is not None:
            await self._listener.on_revoked(lost)
        self._owned = ()

    async def _gain(self, share: tuple[Partition, ...]) -> None:
        self._assigned = self._owned = share
        assert self._listener is not None, "a member has started"
        await self._listener.on_assigned(share)
        self._broker._wake()  # noqa: SLF001
