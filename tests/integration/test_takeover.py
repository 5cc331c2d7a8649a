"""A dead owner's open transaction, a twin with our name, strangers' aborted records: on a real broker."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import orjson
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from prometheus_client import CollectorRegistry

from stream_guard.core.clock import SystemClock
from stream_guard.core.errors import BrokerError
from stream_guard.core.kafka_types import Partition
from stream_guard.judging.engine.scripted import ScriptedJudge
from stream_guard.kafka.batches import discard_producer
from stream_guard.kafka.publisher import KafkaPublisher
from stream_guard.kafka.source import KafkaSource
from stream_guard.kafka.transactions import KafkaTransactor, transactional_id
from stream_guard.policies.policy import PolicySet, make_policy
from stream_guard.settings import BatchingSettings, DeliverySettings, KafkaSettings, Settings
from stream_guard.stream.exactly_once import TransactionalPublisher
from stream_guard.stream.in_flight import Outgoing
from stream_guard.telemetry.metrics import Metrics
from tests.contract.test_source_publisher import Listener
from tests.hang import HANG_S
from tests.in_flight import in_flight
from tests.integration.harness import read
from tests.simulation.assembly import make_poll_loop

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_guard.stream.poll_loop import PollLoop
    from stream_guard.stream.ports import Publisher
    from stream_guard.testing import Broker

PARTITIONS = 6
POLICY = make_policy("a", b"# a\nS1: a rule\n")


class Member:
    """A poll loop on a real broker, with a judge that answers at once."""

    def __init__(self, settings: Settings) -> None:
        kafka, delivery = settings.kafka, settings.delivery
        self.metrics = Metrics(CollectorRegistry())
        self.source = KafkaSource(kafka, delivery, Metrics(CollectorRegistry()))
        self.publisher: Publisher = (
            TransactionalPublisher(
                KafkaTransactor(kafka, delivery), delivery, self.metrics, fenced_pause_s=0
            )
            if delivery.mode == "exactly_once"
            else KafkaPublisher(kafka, delivery, self.metrics)
        )
        self.loop: PollLoop = make_poll_loop(
            settings,
            PolicySet({"a": POLICY}, {kafka.topics[0]: ("a",)}),
            source=self.source,
            judge=ScriptedJudge(),
            publisher=self.publisher,
            clock=SystemClock(),
            metrics=self.metrics,
        )
        self.task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self.publisher.start()
        await self.source.start(self.loop)
        self.task = asyncio.create_task(self.loop.run())

    async def stop(self) -> None:
        self.loop.stop()
        if self.task is not None:
            await asyncio.wait([self.task])
        await self.loop.drain()
        await self.source.stop()
        await self.publisher.stop()


def settings_of(
    broker: Broker, new_topic: Callable[..., str], mode: str = "exactly_once", **kafka: object
) -> Settings:
    posts = new_topic("posts", partitions=PARTITIONS)
    return Settings(
        kafka=KafkaSettings.model_validate(
            {
                "bootstrap_servers": broker.bootstrap_servers,
                "topics": (posts,),
                "group_id": posts,
                "verdict_topic": new_topic("verdicts", partitions=1),
                "dead_letter_topic": new_topic("dead", partitions=1),
                "heartbeat_interval_ms": 300,
                **kafka,
            }
        ),
        delivery=DeliverySettings.model_validate({"mode": mode, "transaction_timeout_ms": 600_000}),
        batching=BatchingSettings(age_max_ms=0),
    )


def post(number: int) -> bytes:
    return orjson.dumps({"id": str(number), "text": "t"})


async def send(kafka: KafkaSettings, values: list[bytes], *, abort: bool = False) -> None:
    """Produce to partition 0 in a transaction, committed or aborted."""
    producer = AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap_servers, transactional_id=f"stranger-{kafka.group_id}"
    )
    await producer.start()
    try:
        await producer.begin_transaction()
        for value in values:
            await (await producer.send(kafka.topics[0], value, partition=0))
        await (producer.abort_transaction() if abort else producer.commit_transaction())
    finally:
        await producer.stop()


async def test_a_dead_owners_open_transaction_is_aborted_before_positions_are_read(
    broker: Broker, new_topic: Callable[..., str]
) -> None:
    """Its time-out is ten minutes, and the group's membership must survive the wait for the position."""
    settings = settings_of(broker, new_topic, session_timeout_ms=6_000, rebalance_timeout_ms=32_000)
    kafka, delivery = settings.kafka, settings.delivery
    await send(kafka, [post(n) for n in range(10)])
    # The dead owner: a position is pending in its transaction, and nobody ends it.
    owner = AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap_servers,
        transactional_id=transactional_id(kafka.group_id, Partition(kafka.topics[0], 0)),
        transaction_timeout_ms=delivery.transaction_timeout_ms,
    )
    await owner.start()
    await owner.begin_transaction()
    await owner.send_and_wait(kafka.verdict_topic, b"of the dead")
    await owner.send_offsets_to_transaction({TopicPartition(kafka.topics[0], 0): 7}, kafka.group_id)
    await discard_producer(owner, timeout_s=5)

    member = Member(settings)
    async with asyncio.timeout(HANG_S):
        await member.start()
        verdicts = await read(
            kafka.bootstrap_servers, [kafka.verdict_topic], lambda got: len(got) >= 10
        )
        await member.stop()
    ids = [orjson.loads(record.value)["content"]["id"] for record in verdicts]
    assert sorted(ids, key=int) == [str(n) for n in range(10)]


async def poll_until_it_fails(source: KafkaSource) -> None:
    while True:
        await source.poll((), records_max=1, timeout_ms=100)
        await asyncio.sleep(0.01)


async def test_a_member_that_a_twin_replaced_ends_and_names_the_setting(
    broker: Broker, new_topic: Callable[..., str]
) -> None:
    settings = settings_of(broker, new_topic, group_instance_id="twin")
    first, second = (
        KafkaSource(settings.kafka, settings.delivery, Metrics(CollectorRegistry()))
        for _ in range(2)
    )
    told = Listener()
    async with asyncio.timeout(HANG_S):
        await first.start(told)
        await told.assigned.wait()
        joining = asyncio.create_task(second.start(Listener()))
        with pytest.raises(BrokerError, match=r"kafka\.group_instance_id") as caught:
            await poll_until_it_fails(first)
        assert caught.value.exit_code == 3
        await joining
        for _ in range(20):
            await second.poll((), records_max=1, timeout_ms=100)
            await asyncio.sleep(0.05)
        await first.stop()
        assert second.assigned(), "the newer one stays"
        await second.stop()


@pytest.mark.parametrize("mode", ["at_least_once", "exactly_once"])
async def test_lag_and_position_pass_what_strangers_aborted(
    broker: Broker, new_topic: Callable[..., str], mode: str
) -> None:
    settings = settings_of(broker, new_topic, mode)
    await send(settings.kafka, [post(1)])
    member = Member(settings)
    async with asyncio.timeout(HANG_S):
        await member.start()
        await read(
            settings.kafka.bootstrap_servers,
            [settings.kafka.verdict_topic],
            lambda got: len(got) >= 1,
        )
        await send(settings.kafka, [b"never seen"] * 1_000, abort=True)
        while member.source.ends().get(Partition(settings.kafka.topics[0], 0), 0) < 1_000:  # noqa: ASYNC110 - a broker calls nobody
            await asyncio.sleep(0.01)
        while member.loop.lag_records() != 0:  # noqa: ASYNC110 - nobody could set an event
            await asyncio.sleep(0.01)
        behind = [one.behind for one in member.loop.standings()]
        assert max(behind, default=None) == 0  # type: ignore[type-var]
        await member.stop()


async def test_a_record_without_a_key_in_a_compacted_topic_is_named(
    broker: Broker, new_topic: Callable[..., str]
) -> None:
    del new_topic
    topic = "compacted-by-key"
    await asyncio.to_thread(
        broker.create_topics, topic, partitions=1, configs={"cleanup.policy": "compact"}
    )
    kafka = KafkaSettings(bootstrap_servers=broker.bootstrap_servers, topics=("unused",))
    publisher = KafkaPublisher(kafka, DeliverySettings(), Metrics(CollectorRegistry()))
    async with asyncio.timeout(HANG_S):
        await publisher.start()
        publisher.publish([Outgoing(topic, None, b"v", [], in_flight())], lambda _: None)
        error = await publisher.wait_failed()
        await publisher.stop()
    assert isinstance(error, BrokerError)
    assert "InvalidRecord" in str(error)
    assert f"{topic}/0" in str(error)
