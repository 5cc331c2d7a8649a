"""Each partition that is written has its own queue, producer and deadline; the client is a double."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from aiokafka.errors import MessageSizeTooLargeError, NotLeaderForPartitionError
from prometheus_client import CollectorRegistry

from stream_guard.core.errors import BrokerError, DoubtError
from stream_guard.core.kafka_types import Partition
from stream_guard.kafka import batches
from stream_guard.kafka.protocol_errors import InvalidRecordError
from stream_guard.kafka.publisher import KafkaPublisher
from stream_guard.kafka.transactions import KafkaTransactor
from stream_guard.settings import DeliverySettings, KafkaSettings
from stream_guard.stream.in_flight import Outgoing
from stream_guard.telemetry.metrics import Metrics
from tests.hang import HANG_S
from tests.in_flight import in_flight

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from aiokafka.structs import OffsetAndMetadata


class Batch:
    """Takes ten records."""

    def __init__(self) -> None:
        self.values: list[bytes | None] = []

    def append(self, *, value: bytes | None, **_: object) -> object | None:
        if len(self.values) == 10:
            return None
        self.values.append(value)
        return self

    def close(self) -> None:
        """As aiokafka's."""


class Cluster:
    """What the double of the client talks to.

    Attributes:
        errors: by topic, what each of its batches fails with.
        silent: topics whose batches are never answered.
        bytes_max: by topic, the largest sum of a batch's values that it takes.
        committed: positions that transactions have written.
        written: values, by topic.
        producers: those that were made, in order.
        by_topic: the producers that wrote to a topic.
    """

    def __init__(self) -> None:
        self.errors: dict[str, type[Exception]] = {}
        self.silent: set[str] = set()
        self.bytes_max: dict[str, int] = {}
        self.committed: list[int] = []
        self.written: dict[str, list[bytes | None]] = {}
        self.producers: list[Producer] = []
        self.by_topic: dict[str, set[int]] = {}


class Producer:
    """A double of aiokafka's producer: as much of it as is used."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._number = len(cluster.producers)
        cluster.producers.append(self)
        self._sender = SimpleNamespace(sender_task=None)
        self._txn_manager = SimpleNamespace(_transaction_waiter=None)
        self.client = self

    async def start(self) -> None:
        """As aiokafka's."""

    async def close(self) -> None:
        """As aiokafka's."""

    async def partitions_for(self, topic: str) -> set[int]:
        del topic
        return {0}

    async def begin_transaction(self) -> None:
        """As aiokafka's."""
        waiter = asyncio.get_running_loop().create_future()
        self._txn_manager = SimpleNamespace(_transaction_waiter=waiter)

    async def send_offsets_to_transaction(
        self, offsets: Mapping[object, OffsetAndMetadata], group: str
    ) -> None:
        del group
        self._cluster.committed += [one.offset for one in offsets.values()]

    async def commit_transaction(self) -> None:
        """As aiokafka's."""

    def create_batch(self) -> Batch:
        return Batch()

    async def send_batch(
        self, batch: Batch, topic: str, *, partition: int
    ) -> asyncio.Future[object]:
        del partition
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        error = self._cluster.errors.get(topic)
        size_bytes = sum(len(value or b"") for value in batch.values)
        if size_bytes > self._cluster.bytes_max.get(topic, size_bytes):
            error = MessageSizeTooLargeError
        if error is not None:
            future.set_exception(error())
        elif topic not in self._cluster.silent:
            self._cluster.written.setdefault(topic, []).extend(batch.values)
            self._cluster.by_topic.setdefault(topic, set()).add(self._number)
            future.set_result(None)
        return future


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    cluster = Cluster()
    monkeypatch.setattr(batches, "AIOKafkaProducer", lambda **_: Producer(cluster))
    monkeypatch.setattr("stream_guard.kafka.destination.pause_s", lambda _: 0.001)
    return cluster


@pytest_asyncio.fixture
async def publisher(cluster: Cluster) -> AsyncIterator[KafkaPublisher]:
    assert not cluster.producers
    publisher = KafkaPublisher(
        KafkaSettings(linger_ms=0),
        DeliverySettings(publish_timeout_s=0.2),
        Metrics(CollectorRegistry()),
    )
    await publisher.start()
    yield publisher
    await publisher.stop()


def publish(publisher: KafkaPublisher, topic: str, count: int) -> asyncio.Event:
    """Publish records, and return an event that is set once all are acknowledged."""
    done, left = asyncio.Event(), count

    def acknowledged(sent: Sequence[Outgoing]) -> None:
        nonlocal left
        left -= len(sent)
        if not left:
            done.set()

    records = [Outgoing(topic, b"k", b"%d" % n, [], in_flight()) for n in range(count)]
    publisher.publish(records, acknowledged)
    return done


async def test_a_partition_that_fails_has_its_deadline_though_others_are_written(
    cluster: Cluster, publisher: KafkaPublisher
) -> None:
    cluster.errors["verdicts"] = NotLeaderForPartitionError
    publish(publisher, "verdicts", 5)
    failing = asyncio.create_task(publisher.wait_failed())
    async with asyncio.timeout(HANG_S):
        while not failing.done():
            await publish(publisher, "dead", 3).wait()
            await asyncio.sleep(0)
    error = failing.result()
    assert isinstance(error, BrokerError)
    assert "verdicts/0" in str(error)
    assert "delivery.publish_timeout_s" in str(error)
    assert "NotLeaderForPartition" in str(error)


async def test_a_partition_that_does_not_answer_delays_no_other(
    cluster: Cluster, publisher: KafkaPublisher
) -> None:
    cluster.silent.add("verdicts")
    publish(publisher, "verdicts", 500)
    async with asyncio.timeout(HANG_S):
        for _ in range(50):
            await publish(publisher, "dead", 200).wait()
    assert len(cluster.written["dead"]) == 10_000


async def test_a_partition_that_fails_gets_new_producers_and_the_others_keep_theirs(
    cluster: Cluster, publisher: KafkaPublisher
) -> None:
    async with asyncio.timeout(HANG_S):
        await publish(publisher, "dead", 1).wait()
        cluster.errors["verdicts"] = NotLeaderForPartitionError
        waiting = publish(publisher, "verdicts", 25)
        while len(cluster.producers) < 4:  # noqa: ASYNC110 - nobody could set an event
            await asyncio.sleep(0.001)
        await publish(publisher, "dead", 1).wait()
        del cluster.errors["verdicts"]
        await waiting.wait()
    assert cluster.written["verdicts"] == [b"%d" % n for n in range(25)], "in order, and once"
    assert cluster.by_topic["dead"] == {0}
    assert 0 not in cluster.by_topic["verdicts"]


async def test_what_a_broker_refuses_for_good_ends_at_once_and_is_named(
    cluster: Cluster, publisher: KafkaPublisher
) -> None:
    cluster.errors["verdicts"] = InvalidRecordError
    publish(publisher, "verdicts", 1)
    async with asyncio.timeout(HANG_S):
        error = await publisher.wait_failed()
    assert isinstance(error, BrokerError)
    assert "InvalidRecord" in str(error)
    assert "verdicts/0" in str(error)
    assert len(cluster.producers) == 1, "no other producer could help"


def test_every_code_that_brokers_send_has_a_name() -> None:
    from aiokafka.errors import UnknownError, for_code

    assert [code for code in range(134) if for_code(code) is UnknownError] == []
    assert for_code(82).__name__ == "FencedInstanceIdError"
    assert not for_code(87).retriable


def verdicts(topic: str, *values: bytes) -> list[Outgoing]:
    """Return outputs that become ``s`` and their value's first letter where they are refused."""
    made = [Outgoing(topic, b"k", value, [], in_flight()) for value in values]
    for one in made:
        one.smaller = lambda key, value, headers: (key, b"s" + (value or b"")[:1], headers)
    return made


async def test_a_record_that_its_topic_refuses_is_written_smaller_and_in_its_place(
    cluster: Cluster, publisher: KafkaPublisher
) -> None:
    cluster.bytes_max["verdicts"] = 4
    acknowledged: list[Outgoing] = []
    outgoing = verdicts("verdicts", b"a", b"b", b"c too large", b"d", b"e too large", b"f")
    async with asyncio.timeout(HANG_S):
        publisher.publish(outgoing, acknowledged.extend)
        await publisher.flush()
    assert cluster.written["verdicts"] == [b"a", b"b", b"sc", b"d", b"se", b"f"]
    assert acknowledged == outgoing, "each once, in order"


@pytest.mark.parametrize("smaller", [True, False])
async def test_where_even_the_smaller_record_is_refused_the_topic_and_its_setting_are_named(
    cluster: Cluster, publisher: KafkaPublisher, *, smaller: bool
) -> None:
    cluster.bytes_max["verdicts"] = 1
    outgoing = verdicts("verdicts", b"a", b"too large")
    if not smaller:
        outgoing[1].smaller = None
    publisher.publish(outgoing, lambda _: None)
    async with asyncio.timeout(HANG_S):
        error = await publisher.wait_failed()
    assert isinstance(error, BrokerError)
    for word in ("verdicts", "max.message.bytes", "STREAM_GUARD_KAFKA__DEAD_LETTER_BYTES_MAX"):
        assert word in str(error)
    assert f"{3 if smaller else 10} bytes" in str(error)


async def write(claims: KafkaTransactor, *values: bytes, position: int = 1) -> list[Outgoing]:
    """Write one record's outputs in a session of their own, as after a doubt."""
    session = await claims.claim(Partition("posts", 0))
    outgoing = verdicts("verdicts", *values)
    for number, one in enumerate(outgoing):
        one.label = (f"policy-{number}", "safe", "scripted", "live")
    await session.write(outgoing, position)
    return outgoing


async def test_a_transaction_with_a_refused_record_is_written_again_with_a_smaller_one(
    cluster: Cluster,
) -> None:
    claims = KafkaTransactor(KafkaSettings(), DeliverySettings())
    cluster.bytes_max["verdicts"] = 4
    for _ in range(2):  # first in a batch, then alone
        with pytest.raises(DoubtError, match="verdicts: a batch is too large"):
            await write(claims, b"a", b"b too large", b"c")
        assert not cluster.committed
    await write(claims, b"a", b"b too large", b"c")
    assert cluster.written["verdicts"][-3:] == [b"a", b"sb", b"c"]
    assert cluster.committed == [1]
    cluster.bytes_max["verdicts"] = 100
    await write(claims, b"b too large", position=2)
    assert cluster.written["verdicts"][-1] == b"b too large", "what is written is forgotten"


async def test_a_transaction_whose_smaller_record_is_refused_ends_by_name(cluster: Cluster) -> None:
    claims = KafkaTransactor(KafkaSettings(), DeliverySettings())
    cluster.bytes_max["verdicts"] = 1
    with pytest.raises(DoubtError):
        await write(claims, b"too large")
    with pytest.raises(BrokerError, match=r"raise max\.message\.bytes of verdicts") as caught:
        await write(claims, b"too large")
    assert not isinstance(caught.value, DoubtError)
    assert not cluster.committed
