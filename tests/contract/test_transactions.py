"""One suite over transactions in memory and on a real broker: what exactly-once mode relies on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry

from stream_guard.core.errors import BrokerError, DoubtError, LimitError
from stream_guard.core.kafka_types import Partition
from stream_guard.kafka.transactions import KafkaTransactor
from stream_guard.settings import DeliverySettings
from stream_guard.stream.exactly_once import TransactionalPublisher
from stream_guard.stream.in_flight import Outgoing
from stream_guard.stream.offsets import PartitionOffsets
from stream_guard.telemetry.metrics import Metrics
from stream_guard.testing import MemoryRecord, MemoryTransactor
from tests.contract.test_source_publisher import KafkaRig, MemoryRig, reading, take
from tests.hang import HANG_S
from tests.in_flight import in_flight

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.stream.ports import Transactor

    Rig = MemoryRig | KafkaRig

DELIVERY = DeliverySettings(transaction_interval_ms=1)


@pytest.fixture(params=["memory", "kafka"])
def rig(request: pytest.FixtureRequest) -> Rig:
    if request.param == "memory":
        return MemoryRig()
    return KafkaRig(request.getfixturevalue("broker"))


def transactor(rig: Rig, group: str) -> Transactor:
    if isinstance(rig, MemoryRig):
        return MemoryTransactor(rig.broker, group)
    return KafkaTransactor(rig.settings("unused", group), DELIVERY)


def out(topic: str, *values: bytes) -> list[Outgoing]:
    return [Outgoing(topic, b"k", value, [("h", b"1")], in_flight()) for value in values]


async def seen(rig: Rig, topic: str, count: int) -> list[bytes | None]:
    """Return the first values that a reader of committed records sees."""
    async with reading(rig, topic, f"reader-{topic}") as (source, _):
        return [record.value for record in await take(source, count)]


async def test_records_and_position_are_written_together(rig: Rig) -> None:
    posts, verdicts = rig.create_topic(2), rig.create_topic(1)
    partition = Partition(posts, 1)
    async with asyncio.timeout(HANG_S):
        session = await transactor(rig, posts).claim(partition)
        await session.write(out(verdicts, b"a", b"b"), 3)
        await session.write(out(verdicts, b"c"), 7)
        await session.close()
        async with reading(rig, posts, posts) as (source, _):
            assert await source.committed([partition]) == {partition: 7}
            assert await source.committed([Partition(posts, 0)]) == {Partition(posts, 0): 0}
        assert await seen(rig, verdicts, 3) == [b"a", b"b", b"c"]


async def test_a_claim_fences_the_one_before_it(rig: Rig) -> None:
    posts, verdicts = rig.create_topic(2), rig.create_topic(1)
    partition, other = Partition(posts, 0), Partition(posts, 1)
    async with asyncio.timeout(HANG_S):
        claims = transactor(rig, posts)
        old, neighbour = await claims.claim(partition), await claims.claim(other)
        await old.write(out(verdicts, b"by the old"), 1)
        new = await transactor(rig, posts).claim(partition)
        with pytest.raises(DoubtError) as caught:
            await old.write(out(verdicts, b"by a zombie"), 9)
        assert caught.value.cause == "fenced"
        await new.write(out(verdicts, b"by the new"), 2)
        await neighbour.write(out(verdicts, b"by the neighbour"), 5)
        for session in (old, new, neighbour):
            await session.close()
        async with reading(rig, posts, posts) as (source, _):
            assert await source.committed([partition, other]) == {partition: 2, other: 5}
        assert await seen(rig, verdicts, 3) == [b"by the old", b"by the new", b"by the neighbour"]


async def test_groups_do_not_fence_each_other(rig: Rig) -> None:
    posts, verdicts = rig.create_topic(1), rig.create_topic(1)
    partition = Partition(posts, 0)
    async with asyncio.timeout(HANG_S):
        one = await transactor(rig, f"{posts}-one").claim(partition)
        two = await transactor(rig, f"{posts}-two").claim(partition)
        await one.write(out(verdicts, b"one"), 1)
        await two.write(out(verdicts, b"two"), 1)
        await one.close()
        await two.close()


class Publishing:
    """A publisher over one partition with this many records received."""

    def __init__(
        self, rig: Rig, topic: str, group: str, delivery: DeliverySettings = DELIVERY
    ) -> None:
        self.partition = Partition(topic, 0)
        metrics = Metrics(CollectorRegistry())
        self.publisher = TransactionalPublisher(
            transactor(rig, group), delivery, metrics, fenced_pause_s=0
        )
        self.doubts: list[tuple[PartitionOffsets, str]] = []
        self.doubted = asyncio.Event()
        self.publisher.listen(self.note)
        self.acknowledged: list[object] = []

    def note(self, offsets: PartitionOffsets, cause: str) -> None:
        self.doubts.append((offsets, cause))
        self.doubted.set()

    async def begin(self, *received: int, cause: str = "rebalance") -> PartitionOffsets:
        await self.publisher.claim(self.partition, cause)
        offsets = PartitionOffsets(self.partition, 1)
        offsets.receive(received)
        self.publisher.begin(offsets)
        return offsets

    def publish(
        self, offsets: PartitionOffsets, offset: int, outgoing: Sequence[Outgoing], owed: int = 1
    ) -> None:
        origin = in_flight(MemoryRecord(*self.partition, offset), offsets, owed)

        def acknowledged(sent: Sequence[Outgoing]) -> None:
            for record in sent:
                self.acknowledged.append(record.value)
            offsets.finish(offset)

        for one in outgoing:
            one.origin = origin
        self.publisher.publish(outgoing, acknowledged)


async def test_what_is_ready_waits_for_all_before_it(rig: Rig) -> None:
    posts, verdicts = rig.create_topic(1), rig.create_topic(1)
    rigged = Publishing(rig, posts, posts)
    async with asyncio.timeout(HANG_S), reading(rig, posts, posts) as (source, _):
        offsets = await rigged.begin(0, 1, 5)
        rigged.publish(offsets, 1, out(verdicts, b"second"))
        rigged.publish(offsets, 0, out(verdicts, b"first, of policy a"), owed=2)
        await asyncio.sleep(0)
        assert rigged.acknowledged == []
        assert await source.committed([rigged.partition]) == {rigged.partition: 0}
        rigged.publish(offsets, 0, out(verdicts, b"first, of policy b"), owed=2)
        await rigged.publisher.flush()
        # The record at 5 still owes, so that this is where reading would begin: the gap is passed.
        assert await source.committed([rigged.partition]) == {rigged.partition: 5}
        assert offsets.committed == 5
        rigged.publish(offsets, 5, out(verdicts, b"third"))
        await rigged.publisher.flush()
        assert await source.committed([rigged.partition]) == {rigged.partition: 6}
        await rigged.publisher.stop()
    assert rigged.acknowledged[-1] == b"third"
    assert (await seen(rig, verdicts, 4))[:3] == [
        b"first, of policy a",
        b"first, of policy b",
        b"second",
    ]


async def test_nothing_of_an_ended_epoch_is_written(rig: Rig) -> None:
    posts, verdicts = rig.create_topic(1), rig.create_topic(1)
    rigged = Publishing(rig, posts, posts)
    async with asyncio.timeout(HANG_S):
        old = await rigged.begin(0, 1)
        rigged.publish(old, 1, out(verdicts, b"held, and given up"))
        thief = await transactor(rig, posts).claim(rigged.partition)
        rigged.publish(old, 0, out(verdicts, b"fenced"))
        await rigged.doubted.wait()
        assert rigged.doubts == [(old, "fenced")]
        assert old.revoked
        rigged.publish(old, 0, out(verdicts, b"after the doubt"))
        new = await rigged.begin(0, 1, cause="fenced")
        rigged.publish(old, 0, out(verdicts, b"of the old epoch"))
        rigged.publish(new, 0, out(verdicts, b"of the new"))
        await rigged.publisher.flush()
        with pytest.raises(DoubtError):
            await thief.write(out(verdicts, b"by the thief"), 2)
        await thief.close()
        await rigged.publisher.release([rigged.partition])
        rigged.publish(new, 1, out(verdicts, b"after the release"))
        last = await rigged.begin(1)
        rigged.publish(last, 1, out(verdicts, b"last"))
        await rigged.publisher.flush()
        await rigged.publisher.stop()
    assert await seen(rig, verdicts, 2) == [b"of the new", b"last"]
    assert rigged.acknowledged == [b"of the new", b"last"]


async def test_too_many_partitions_are_refused_with_the_remedy(rig: Rig) -> None:
    posts = rig.create_topic(3)
    delivery = DeliverySettings(transaction_producers_max=2)
    rigged = Publishing(rig, posts, posts, delivery)
    publisher = rigged.publisher
    async with asyncio.timeout(HANG_S):
        for number in (0, 1, 1):  # claiming one again is no more than one
            await publisher.claim(Partition(posts, number), "rebalance")
        with pytest.raises(LimitError, match=r"transaction_producers_max.* is 2"):
            await publisher.claim(Partition(posts, 2), "rebalance")
        await publisher.release([Partition(posts, number) for number in range(3)])
        await publisher.claim(Partition(posts, 2), "rebalance")
        await publisher.stop()


async def test_failing_for_too_long_is_an_error(rig: Rig) -> None:
    posts = rig.create_topic(1)
    rigged = Publishing(rig, posts, posts, DeliverySettings(publish_timeout_s=1e-9))
    async with asyncio.timeout(HANG_S):
        offsets = await rigged.begin(0)
        thief = await transactor(rig, posts).claim(rigged.partition)
        rigged.publish(offsets, 0, out(rig.create_topic(1), b"never"))
        error = await rigged.publisher.wait_failed()
        assert isinstance(error, BrokerError)
        assert "publish_timeout_s" in str(error)
        await rigged.publisher.stop()
        await thief.close()
