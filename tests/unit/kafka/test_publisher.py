"""Each partition that is written has its own queue, producer and deadline; the client is a double."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from aiokafka.errors import NotLeaderForPartitionError
from prometheus_client import CollectorRegistry

from stream_guard.core.errors import BrokerError
from stream_guard.kafka import batches
from stream_guard.kafka.protocol_errors import InvalidRecordError
from stream_guard.kafka.publisher import KafkaPublisher
from stream_guard.settings import DeliverySettings, KafkaSettings
from stream_guard.stream.in_flight import Outgoing
from stream_guard.telemetry.metrics import Metrics
from tests.hang import HANG_S
from tests.in_flight import in_flight

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence


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
        written: values, by topic.
        producers: those that were made, in order.
        by_topic: the producers that wrote to a topic.
    """

    def __init__(self) -> None:
        self.errors: dict[str, type[Exception]] = {}
        self.silent: set[str] = set()
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

    def create_batch(self) -> Batch:
        return Batch()

    async def send_batch(
        self, batch: Batch, topic: str, *, partition: int
    ) -> asyncio.Future[object]:
        del partition
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        error = self._cluster.errors.get(topic)
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
