"""What the producers do when the broker's answer is an error, or none: faults put in front of a real broker."""

from __future__ import annotations

import asyncio
import os
import uuid
from typing import TYPE_CHECKING, Any

import aiokafka.errors as kafka_errors
import orjson
import pytest
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import (
    AddOffsetsToTxnRequest,
    AddPartitionsToTxnRequest,
    EndTxnRequest,
    InitProducerIdRequest,
    TxnOffsetCommitRequest,
)
from prometheus_client import CollectorRegistry

from stream_guard.core.errors import BrokerError, DoubtError, JsonError
from stream_guard.core.kafka_types import Partition
from stream_guard.kafka import batches
from stream_guard.kafka.publisher import KafkaPublisher
from stream_guard.kafka.source import KafkaSource
from stream_guard.kafka.transactions import KafkaTransactor
from stream_guard.records.dead_letter_event import build_dead_letter, smaller_dead_letter
from stream_guard.records.verdict_event import VerdictEvents, smaller_verdict
from stream_guard.settings import DeliverySettings, KafkaSettings
from stream_guard.stream.in_flight import Outgoing
from stream_guard.telemetry.metrics import Metrics
from stream_guard.testing import MemoryRecord
from tests.contract.test_source_publisher import Listener
from tests.in_flight import in_flight
from tests.integration.harness import HANG_S, read
from tests.verdicts import make_verdict

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from aiokafka import AIOKafkaProducer

    from stream_guard.testing import Broker

DELIVERY = DeliverySettings(transaction_timeout_ms=2_000, stop_timeout_s=2)
# What a broker says of an idempotent producer whose state it does not share.
POISON = (
    "OutOfOrderSequenceNumber",
    "UnknownProducerId",
    "InvalidProducerEpoch",
    "ProducerFenced",
    "InvalidProducerIdMapping",
    "InvalidTxnState",
    "CorruptRecordException",
    "NotEnoughReplicasAfterAppendError",
    "UnknownError",
)


class Faults:
    """Stands between aiokafka and its connections.

    Attributes:
        plan: what to do with the next requests of a kind: an error to raise, or None to answer never; and whether the
            broker gets the request all the same.
        hit: how many requests were.
        struck: set once one was.
    """

    def __init__(self) -> None:
        self.plan: list[tuple[type[Any], str | None, bool]] = []
        self.hit = 0
        self.struck = asyncio.Event()

    def stand_before(self, producer: AIOKafkaProducer) -> None:
        client = producer.client
        send, close = client.send, client.close
        closed = asyncio.get_running_loop().create_future()

        async def faulty(node_id: int, request: object, **options: object) -> object:
            if self.plan and isinstance(request, self.plan[0][0]):
                _, error, arrives = self.plan.pop(0)
                self.hit += 1
                self.struck.set()
                if arrives:
                    await send(node_id, request, **options)
                if error is None:
                    # A request without an answer ends with its connection.
                    await asyncio.shield(closed)
                raise getattr(kafka_errors, error or "KafkaConnectionError")
            return await send(node_id, request, **options)

        async def closing() -> None:
            if not closed.done():
                closed.set_result(None)
            await close()

        client.send, client.close = faulty, closing


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    """Faults before every producer that is made from now on."""
    faults = Faults()
    make = batches.make_producer

    def made(settings: KafkaSettings, **options: object) -> AIOKafkaProducer:
        producer = make(settings, **options)
        faults.stand_before(producer)
        return producer

    for module in ("producers", "transactions"):
        monkeypatch.setattr(f"stream_guard.kafka.{module}.make_producer", made)
    return faults


def settings_of(
    broker: Broker, topic: str, written: str = "verdicts", dead: str = "dead-letters"
) -> KafkaSettings:
    return KafkaSettings(
        bootstrap_servers=broker.bootstrap_servers,
        topics=(topic,),
        group_id=topic,
        request_timeout_ms=1_000,
        verdict_topic=written,
        dead_letter_topic=dead,
    )


def out(topic: str, *values: bytes) -> list[Outgoing]:
    return [Outgoing(topic, b"k", value, [], in_flight()) for value in values]


@pytest.mark.parametrize("fate", ["lost", "written"])
@pytest.mark.parametrize("error", [*POISON, None])
async def test_the_producer_is_made_anew_and_nothing_is_lost(
    broker: Broker, new_topic: Callable[..., str], faults: Faults, error: str | None, fate: str
) -> None:
    topic = new_topic("verdicts", partitions=1)
    metrics = Metrics(CollectorRegistry())
    publisher = KafkaPublisher(settings_of(broker, "unused"), DELIVERY, metrics)
    values = [b"%d" % n for n in range(30)]
    acknowledged: list[object] = []

    def note(sent: Sequence[Outgoing]) -> None:
        acknowledged.extend(record.value for record in sent)

    async with asyncio.timeout(HANG_S):
        await publisher.start()
        publisher.publish(out(topic, *values[:10]), note)
        await publisher.flush()
        faults.plan = [(ProduceRequest, error, fate == "written")]
        publisher.publish(out(topic, *values[10:20]), note)
        await publisher.flush()
        publisher.publish(out(topic, *values[20:]), note)
        await publisher.flush()
        await publisher.stop()
    assert faults.hit == 1
    assert acknowledged == values, "each is acknowledged once, in order"
    records = await read(broker.bootstrap_servers, [topic], lambda got: len(got) >= 30)
    written = [record.value for record in records]
    assert list(dict.fromkeys(written)) == values
    retried = error is not None and getattr(kafka_errors, error).retriable
    rebuilt = metrics.producer_rebuilds._value.get()
    assert rebuilt == (0 if retried else 1)
    # A retry by the same producer is recognised by the broker; a new producer's is a repeat, and is counted.
    assert metrics.repeats.labels("rebuild")._value.get() == 10 * rebuilt
    assert len(written) == 30 + (10 if fate == "written" and rebuilt else 0)


@pytest.mark.parametrize("fate", ["lost", "written"])
@pytest.mark.parametrize("error", ["UnknownProducerId", None])
@pytest.mark.parametrize(
    "request_type",
    [
        AddPartitionsToTxnRequest,
        ProduceRequest,
        AddOffsetsToTxnRequest,
        TxnOffsetCommitRequest,
        EndTxnRequest,
    ],
)
async def test_after_a_doubt_all_is_written_or_nothing(
    broker: Broker,
    new_topic: Callable[..., str],
    faults: Faults,
    request_type: type[Any],
    error: str | None,
    fate: str,
) -> None:
    posts, verdicts = new_topic("posts", partitions=1), new_topic("verdicts", partitions=1)
    partition = Partition(posts, 0)
    settings = settings_of(broker, posts, verdicts, new_topic("dead", partitions=1))
    claims = KafkaTransactor(settings, DELIVERY)
    async with asyncio.timeout(HANG_S):
        session = await claims.claim(partition)
        await session.write(out(verdicts, b"before"), 1)
        # More than once where aiokafka would try again by itself.
        faults.plan = [(request_type, error, fate == "written")] * (1 if error is None else 100)
        with pytest.raises(DoubtError):
            await session.write(out(verdicts, b"in doubt", b"in doubt too"), 3)
        assert faults.hit >= 1
        faults.plan = []
        await session.close()
        session = await claims.claim(partition)
        position = await committed(settings, partition)
        if position == 1:
            await session.write(out(verdicts, b"in doubt", b"in doubt too"), 3)
        else:
            assert position == 3
            assert request_type is EndTxnRequest
            assert fate == "written"
        await session.write(out(verdicts, b"after"), 4)
        await session.close()
    records = await read(broker.bootstrap_servers, [verdicts], lambda got: len(got) >= 4)
    assert [r.value for r in records] == [b"before", b"in doubt", b"in doubt too", b"after"]


@pytest.mark.parametrize("mode", ["at_least_once", "exactly_once"])
async def test_what_the_topic_refuses_as_too_large_is_written_smaller(
    broker: Broker, new_topic: Callable[..., str], mode: str
) -> None:
    posts, name = new_topic("posts", partitions=1), f"small-{uuid.uuid4().hex[:12]}"
    broker.create_topics(name, configs={"max.message.bytes": "2000"})
    settings = settings_of(broker, posts)
    noise = os.urandom(5_000)  # it cannot be compressed
    verdict = make_verdict()
    verdict["policy"]["rationale"] = noise.hex()
    value, headers = VerdictEvents(0).encode(verdict, "00-0-0-00")
    letter = build_dead_letter(
        MemoryRecord(posts, 0, 2, key=b"k", value=noise),
        JsonError("line 1: not JSON"),
        kafka=settings,
        failed_ms=0,
        policy_id=None,
        attempts=1,
    )

    def outgoing() -> list[Outgoing]:
        first, last = out(name, b"before", b"after")
        large = Outgoing(name, b"k", value, headers, in_flight(), ("p", "safe", "t", "live"))
        large.smaller = smaller_verdict
        dead = Outgoing(name, *letter, in_flight(), "json")
        dead.smaller = smaller_dead_letter
        return [first, large, dead, last]

    async with asyncio.timeout(HANG_S):
        if mode == "at_least_once":
            publisher = KafkaPublisher(settings, DELIVERY, Metrics(CollectorRegistry()))
            await publisher.start()
            publisher.publish(outgoing(), lambda _: None)
            await publisher.flush()
            await publisher.stop()
        else:
            claims, doubts, written = KafkaTransactor(settings, DELIVERY), 0, False
            while not written:
                session = await claims.claim(Partition(posts, 0))
                try:
                    await session.write(outgoing(), 1)
                    written = True
                except DoubtError:
                    doubts += 1
                await session.close()
            assert doubts == 2, "first all together, then each alone"
    records = await read(broker.bootstrap_servers, [name], lambda got: len(got) >= 4)
    assert [record.value for record in (records[0], records[-1])] == [b"before", b"after"]
    _, large, dead, _ = records
    found = orjson.loads(large.value)
    assert found["id"] == verdict["id"]
    assert found["provenance"]["degraded"] == ["too_large_for_topic"]
    assert list(large.headers) == headers
    assert dead.value == noise[:256]
    assert dict(dead.headers)["sg_cut_from_bytes"] == b"5000"


async def committed(settings: KafkaSettings, partition: Partition) -> int:
    """Return the position by which a member of the group would begin."""
    listener = Listener()
    source = KafkaSource(settings, DELIVERY, Metrics(CollectorRegistry()))
    try:
        await source.start(listener)
        await listener.assigned.wait()
        return (await source.committed([partition]))[partition]
    finally:
        await source.stop()


@pytest.fixture
async def black_hole() -> AsyncIterator[str]:
    """A broker that takes connections and never answers."""
    taken: list[asyncio.StreamWriter] = []

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken.append(writer)
        await reader.read()

    server = await asyncio.start_server(swallow, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    yield f"{host}:{port}"
    server.close()
    for writer in taken:
        writer.close()
        await writer.wait_closed()


async def test_a_broker_that_never_answers_ends_every_start(black_hole: str) -> None:
    settings = KafkaSettings(bootstrap_servers=black_hole, topics=("t",), request_timeout_ms=1_000)
    publisher = KafkaPublisher(settings, DELIVERY, Metrics(CollectorRegistry()))
    tasks = asyncio.all_tasks()
    async with asyncio.timeout(HANG_S):
        with pytest.raises(BrokerError):
            await publisher.start()
        with pytest.raises(BrokerError):
            await KafkaSource(settings, DELIVERY, Metrics(CollectorRegistry())).start(Listener())
        with pytest.raises(DoubtError):
            await KafkaTransactor(settings, DELIVERY).claim(Partition("t", 0))
        await publisher.stop()
    assert {task for task in asyncio.all_tasks() - tasks if "swallow" not in repr(task)} == set()


async def test_a_claim_that_the_coordinator_does_not_answer_ends_in_doubt(
    broker: Broker, new_topic: Callable[..., str], faults: Faults
) -> None:
    posts = new_topic("posts", partitions=1)
    faults.plan = [(InitProducerIdRequest, None, True)]
    claims = KafkaTransactor(settings_of(broker, posts), DELIVERY)
    async with asyncio.timeout(HANG_S):
        with pytest.raises(DoubtError) as caught:
            await claims.claim(Partition(posts, 0))
        assert caught.value.cause == "timeout"
        session = await claims.claim(Partition(posts, 0))
        await session.close()


async def test_a_producer_that_hangs_is_stopped_and_leaves_nothing_behind(
    broker: Broker, new_topic: Callable[..., str], faults: Faults
) -> None:
    topic = new_topic("verdicts", partitions=1)
    tasks = asyncio.all_tasks()
    publisher = KafkaPublisher(
        settings_of(broker, "unused"), DELIVERY, Metrics(CollectorRegistry())
    )
    async with asyncio.timeout(HANG_S):
        await publisher.start()
        faults.plan = [(ProduceRequest, None, False)]
        publisher.publish(out(topic, b"never"), lambda _: None)
        await faults.struck.wait()
        await publisher.stop()
    assert asyncio.all_tasks() == tasks
