"""One suite over the broker in memory and a real one: what the pipeline relies on from a source and a publisher."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections import Counter
from typing import TYPE_CHECKING, Protocol

import pytest
from prometheus_client import CollectorRegistry

from stream_guard.core.errors import BrokerError
from stream_guard.core.kafka_types import Partition
from stream_guard.kafka.publisher import KafkaPublisher
from stream_guard.kafka.source import KafkaSource
from stream_guard.settings import DeliverySettings, KafkaSettings
from stream_guard.stream.in_flight import Outgoing
from stream_guard.telemetry.metrics import Metrics
from stream_guard.testing import MemoryBroker, MemoryPublisher, MemorySource
from tests.hang import HANG_S
from tests.in_flight import in_flight

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from stream_guard.core.kafka_types import Record
    from stream_guard.stream.ports import Publisher, Source
    from stream_guard.testing import Broker


class Rig(Protocol):
    """A broker, and how to reach it."""

    def create_topic(self, partitions: int) -> str: ...
    def source(self, topic: str, group: str) -> Source: ...
    def publisher(self) -> Publisher: ...


class MemoryRig:
    """In memory."""

    def __init__(self) -> None:
        self.broker = MemoryBroker()

    def create_topic(self, partitions: int) -> str:
        name = f"contract-{uuid.uuid4().hex[:12]}"
        self.broker.create_topics(name, partitions=partitions)
        return name

    def source(self, topic: str, group: str) -> Source:
        return MemorySource(self.broker, [topic], group)

    def publisher(self) -> Publisher:
        return MemoryPublisher(self.broker)


class KafkaRig:
    """A real broker."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        # A source insists that its outputs exist.
        self.written, self.dead = self.create_topic(1), self.create_topic(1)

    def create_topic(self, partitions: int) -> str:
        name = f"contract-{uuid.uuid4().hex[:12]}"
        self.broker.create_topics(name, partitions=partitions)
        return name

    def settings(self, topic: str, group: str = "unused") -> KafkaSettings:
        return KafkaSettings(
            bootstrap_servers=self.broker.bootstrap_servers,
            topics=(topic,),
            group_id=group,
            verdict_topic=self.written,
            dead_letter_topic=self.dead,
            heartbeat_interval_ms=300,
        )

    def source(self, topic: str, group: str) -> Source:
        return KafkaSource(
            self.settings(topic, group), DeliverySettings(), Metrics(CollectorRegistry())
        )

    def publisher(self) -> Publisher:
        metrics = Metrics(CollectorRegistry())
        return KafkaPublisher(self.settings("unused"), DeliverySettings(), metrics)


@pytest.fixture(params=["memory", "kafka"])
def rig(request: pytest.FixtureRequest) -> Rig:
    if request.param == "memory":
        return MemoryRig()
    return KafkaRig(request.getfixturevalue("broker"))


class Listener:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.assigned = asyncio.Event()
        self.told: list[tuple[str, tuple[Partition, ...]]] = []

    async def on_assigned(self, partitions: Sequence[Partition]) -> None:
        self.told.append(("assigned", tuple(partitions)))
        self.assigned.set()

    async def on_revoked(self, partitions: Sequence[Partition]) -> None:
        self.told.append(("revoked", tuple(partitions)))


@contextlib.asynccontextmanager
async def reading(rig: Rig, topic: str, group: str) -> AsyncIterator[tuple[Source, Listener]]:
    source, listener = rig.source(topic, group), Listener()
    try:
        async with asyncio.timeout(HANG_S):
            await source.start(listener)
            await listener.assigned.wait()
            await go_on(source)
            yield source, listener
    finally:
        await source.stop()


async def go_on(source: Source) -> None:
    """Read on from the committed positions, which is the listener's duty after each assignment."""
    for partition, position in (await source.committed(source.assigned())).items():
        source.seek(partition, position)


async def take(source: Source, count: int) -> list[Record]:
    """Return records until there are this many, all partitions asked."""
    records: list[Record] = []
    while len(records) < count:
        polled = await source.poll(source.assigned(), records_max=7, timeout_ms=500)
        assert sum(map(len, polled.values())) <= 7
        for partition, batch in polled.items():
            assert all((r.topic, r.partition) == partition for r in batch)
            records.extend(batch)
    return records


async def publish(rig: Rig, outgoing: Sequence[Outgoing]) -> Counter[int]:
    """Publish, wait, and return how often each one was acknowledged, by its place."""
    acknowledged: Counter[int] = Counter()
    places = {id(sent): place for place, sent in enumerate(outgoing)}
    publisher = rig.publisher()
    before = asyncio.all_tasks()
    async with asyncio.timeout(HANG_S):
        await publisher.start()
        try:
            half = len(outgoing) // 2
            for part in (outgoing[:half], outgoing[half:], []):
                publisher.publish(
                    part, lambda sent: acknowledged.update(places[id(one)] for one in sent)
                )
            await publisher.flush()
        finally:
            await publisher.stop()
    assert asyncio.all_tasks() == before, "a task was left behind"
    return acknowledged


def posts(topic: str, count: int, keys: int = 5) -> list[Outgoing]:
    return [Outgoing(topic, b"k%d" % (n % keys), b"v%d" % n, [], in_flight()) for n in range(count)]


async def test_each_record_is_acknowledged_exactly_once(rig: Rig) -> None:
    topic = rig.create_topic(3)
    assert await publish(rig, posts(topic, 200)) == Counter(range(200))


async def test_records_come_in_order_and_a_key_keeps_its_partition(rig: Rig) -> None:
    topic = rig.create_topic(3)
    await publish(rig, posts(topic, 60))
    await publish(rig, posts(topic, 60))  # by another publisher
    async with reading(rig, topic, topic) as (source, listener):
        assert listener.told == [("assigned", tuple(Partition(topic, n) for n in range(3)))]
        assert sorted(source.assigned()) == list(listener.told[0][1])
        records = await take(source, 120)
    assert len(records) == 120
    partitions: dict[bytes | None, set[int]] = {}
    for number in range(3):
        own = [record.offset for record in records if record.partition == number]
        assert own == sorted(set(own))
    for key in {record.key for record in records}:
        own_values = [record.value for record in records if record.key == key]
        expected = [out.value for out in posts(topic, 60) if out.key == key]
        assert own_values == expected * 2
        partitions[key] = {record.partition for record in records if record.key == key}
    assert all(len(places) == 1 for places in partitions.values())
    assert len(set().union(*partitions.values())) > 1


async def test_headers_and_nulls_survive(rig: Rig) -> None:
    topic = rig.create_topic(1)
    headers = [("a", b"1"), ("a", b"\xff\x00"), ("empty", b""), ("ü", "ü".encode())]
    sent = [
        Outgoing(topic, None, b"value", headers, in_flight()),
        Outgoing(topic, b"key", None, [], in_flight()),
        Outgoing(topic, b"", b"", [], in_flight()),
        Outgoing(topic, None, None, [], in_flight()),
    ]
    assert await publish(rig, sent) == Counter(range(4))
    async with reading(rig, topic, topic) as (source, _):
        records = await take(source, 4)
    assert sorted(
        (r.key or b"", r.value or b"", r.key is None, r.value is None) for r in records
    ) == sorted((s.key or b"", s.value or b"", s.key is None, s.value is None) for s in sent)
    (with_headers,) = (record for record in records if record.value == b"value")
    assert list(with_headers.headers) == headers


async def test_a_poll_of_no_partitions_takes_nothing(rig: Rig) -> None:
    topic = rig.create_topic(2)
    await publish(rig, posts(topic, 20))
    async with reading(rig, topic, topic) as (source, _):
        for _turn in range(3):
            assert not await source.poll((), records_max=10, timeout_ms=50)
        assert len(await take(source, 20)) == 20


async def test_a_partition_that_is_not_asked_for_waits(rig: Rig) -> None:
    topic = rig.create_topic(2)
    await publish(rig, posts(topic, 40))
    async with reading(rig, topic, topic) as (source, _):
        one, other = source.assigned()
        first: list[Record] = []
        while not first:
            polled = await source.poll([one], records_max=5, timeout_ms=500)
            assert set(polled) <= {one}
            first = list(polled.get(one, ()))
        rest = await take(source, 40 - len(first))
    assert len({(r.partition, r.offset) for r in [*first, *rest]}) == 40
    assert {r.partition for r in rest} >= {other.partition}


async def test_a_poll_ends_at_its_bytes_and_loses_nothing(rig: Rig) -> None:
    topic = rig.create_topic(2)
    await publish(rig, posts(topic, 40))
    async with reading(rig, topic, topic) as (source, _):
        records: list[Record] = []
        while len(records) < 40:
            polled = await source.poll(
                source.assigned(), records_max=40, timeout_ms=500, bytes_max=1
            )
            # One record of each partition, so that reading goes on whatever its length.
            assert all(len(batch) == 1 for batch in polled.values())
            for batch in polled.values():
                records.extend(batch)
    assert len({(r.partition, r.offset) for r in records}) == 40


async def test_where_partitions_end_is_known_once_they_were_read(rig: Rig) -> None:
    topic = rig.create_topic(2)
    await publish(rig, posts(topic, 20))
    async with reading(rig, topic, topic) as (source, _):
        records = await take(source, 20)
        ends = source.ends()
        for partition in source.assigned():
            own = [record.offset for record in records if record.partition == partition.partition]
            assert ends[partition] == max(own) + 1


async def test_the_position_is_past_what_was_read(rig: Rig) -> None:
    topic = rig.create_topic(1)
    partition = Partition(topic, 0)
    await publish(rig, posts(topic, 10))
    async with reading(rig, topic, topic) as (source, _):
        assert len(await take(source, 10)) == 10
        assert source.positions()[partition] == 10
        source.seek(partition, 4)
        assert source.positions()[partition] == 4
        assert [record.offset for record in await take(source, 6)] == [4, 5, 6, 7, 8, 9]


async def test_nothing_is_read_before_it_is_said_from_where(rig: Rig) -> None:
    topic = rig.create_topic(1)
    await publish(rig, posts(topic, 5))
    source, listener = rig.source(topic, topic), Listener()
    try:
        async with asyncio.timeout(HANG_S):
            await source.start(listener)
            await listener.assigned.wait()
            for _turn in range(3):
                assert not await source.poll(source.assigned(), records_max=10, timeout_ms=50)
            assert not source.positions()
            source.seek(Partition(topic, 0), 3)
            assert [record.offset for record in await take(source, 2)] == [3, 4]
    finally:
        await source.stop()


async def test_the_next_member_resumes_at_what_was_committed(rig: Rig) -> None:
    topic = rig.create_topic(1)
    partition = Partition(topic, 0)
    await publish(rig, posts(topic, 10))
    async with reading(rig, topic, topic) as (source, _):
        assert len(await take(source, 10)) == 10
        await source.commit({partition: 4})
    async with reading(rig, topic, topic) as (source, _):
        assert [record.offset for record in await take(source, 6)] == [4, 5, 6, 7, 8, 9]
        await source.commit({partition: 10})
    await publish(rig, posts(topic, 1))
    async with reading(rig, topic, topic) as (source, _):
        assert [record.offset for record in await take(source, 1)] == [10]
    async with reading(rig, topic, f"{topic}-other") as (source, _):
        assert [record.offset for record in await take(source, 11)] == list(range(11))


async def test_two_members_share_and_what_was_not_committed_is_read_again(rig: Rig) -> None:
    topic = rig.create_topic(2)
    await publish(rig, posts(topic, 20))
    async with reading(rig, topic, topic) as (first, told_first):
        assert len(await take(first, 20)) == 20
        told_first.assigned.clear()
        async with reading(rig, topic, topic) as (second, _):
            await told_first.assigned.wait()
            await go_on(first)
            assert {*first.assigned(), *second.assigned()} == {(topic, 0), (topic, 1)}
            assert len(first.assigned()) == len(second.assigned()) == 1
            mine: list[Record] = []
            theirs: list[Record] = []
            while len(mine) + len(theirs) < 20:
                for source, into in ((first, mine), (second, theirs)):
                    polled = await source.poll(source.assigned(), records_max=20, timeout_ms=100)
                    for batch in polled.values():
                        into.extend(batch)
            assert {r.partition for r in mine}.isdisjoint({r.partition for r in theirs})
            assert len({(r.partition, r.offset) for r in [*mine, *theirs]}) == 20
        assert [what for what, _ in told_first.told][:3] == ["assigned", "revoked", "assigned"]


async def test_a_topic_that_is_missing_is_an_error_at_start(rig: Rig) -> None:
    source = rig.source("contract-no-such-topic", "g")
    try:
        with pytest.raises(BrokerError, match="contract-no-such-topic"):
            await source.start(Listener())
    finally:
        await source.stop()
