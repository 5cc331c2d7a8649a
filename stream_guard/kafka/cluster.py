"""Asks the brokers for the facts of ``stream-guard doctor``: nodes, and the settings and state of topics.

It changes nothing and joins no group.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError

from stream_guard.core.errors import BrokerError, named
from stream_guard.core.kafka_clients import start_client, stop_client
from stream_guard.kafka.security import connection_options

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stream_guard.settings import KafkaSettings

_TIMEOUT_S: Final = 30.0


@dataclass(slots=True)
class TopicState:
    """The state of one topic.

    Attributes:
        name: its name.
        partitions: how many it has.
        replicas: the smallest number of replicas of a partition.
        under_replicated: partitions with a replica that is not in sync.
        leaderless: partitions without a leader.
        configs: its settings by Kafka's names, including the brokers' own.
        newest_ms: timestamp of the newest record, Unix time in ms; None if it is unknown.
    """

    name: str
    partitions: int = 0
    replicas: int = 0
    under_replicated: int = 0
    leaderless: int = 0
    configs: dict[str, str] = field(default_factory=dict)
    newest_ms: int | None = None


@dataclass(slots=True)
class ClusterState:
    """The state of the cluster.

    Attributes:
        brokers: how many the cluster has.
        topics: those that were asked for and exist, by name.
        answer_ms: how long one request took, in ms.
    """

    brokers: int
    topics: dict[str, TopicState]
    answer_ms: float


async def inspect_cluster(settings: KafkaSettings, names: Iterable[str]) -> ClusterState:
    """Ask for these topics; those that do not exist are not in the answer.

    Raises:
        BrokerError: no broker answers, or the request is not allowed.
    """
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            return await _inspect(settings, sorted(set(names)))
    except (KafkaError, OSError, TimeoutError) as error:
        message = (
            f"the brokers at {settings.bootstrap_servers} (kafka.bootstrap_servers) do not say how their topics are "
            f"set: {named(error)}"
        )
        raise BrokerError(message) from error


async def _inspect(settings: KafkaSettings, names: list[str]) -> ClusterState:
    admin = AIOKafkaAdminClient(**connection_options(settings))
    try:
        await start_client(admin)
        begun_s = time.perf_counter()
        brokers = len((await admin.describe_cluster())["brokers"])
        answer_ms = (time.perf_counter() - begun_s) * 1e3
        there = set(await admin.list_topics())
        wanted = [name for name in names if name in there]
        topics = {
            topic["topic"]: _state(topic)
            for topic in (await admin.describe_topics(wanted) if wanted else ())
        }
        for name, configs in (await _configs(admin, wanted)).items():
            topics[name].configs = configs
    finally:
        await stop_client(admin)
    await _add_newest(settings, topics)
    return ClusterState(brokers, topics, answer_ms)


def _state(topic: dict[str, Any]) -> TopicState:
    partitions = topic["partitions"]
    return TopicState(
        topic["topic"],
        partitions=len(partitions),
        replicas=min((len(one["replicas"]) for one in partitions), default=0),
        under_replicated=sum(len(one["isr"]) < len(one["replicas"]) for one in partitions),
        leaderless=sum(one["leader"] < 0 for one in partitions),
    )


async def _configs(admin: AIOKafkaAdminClient, names: list[str]) -> dict[str, dict[str, str]]:
    if not names:
        return {}
    asked = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    found: dict[str, dict[str, str]] = {}
    for response in await admin.describe_configs(asked):
        for code, message, _kind, name, entries in response.resources:
            if code:
                raise BrokerError(f"the settings of topic {name!r} may not be read: {message}")
            found[name] = {entry[0]: entry[1] for entry in entries if entry[1] is not None}
    return found


async def _add_newest(settings: KafkaSettings, topics: dict[str, TopicState]) -> None:
    """Note the newest record's timestamp of each topic, by reading that record alone."""
    parts = [
        TopicPartition(name, number)
        for name, topic in topics.items()
        if topic.leaderless == 0
        for number in range(topic.partitions)
    ]
    if not parts:
        return  # and one that is stopped before it has done anything raises CancelledError
    consumer = AIOKafkaConsumer(
        group_id=None, enable_auto_commit=False, **connection_options(settings)
    )
    try:
        await start_client(consumer)
        ends = await consumer.end_offsets(parts)
        begins = await consumer.beginning_offsets(parts)
        held = [part for part in parts if ends[part] > begins[part]]
        if not held:
            return
        consumer.assign(held)
        for part in held:
            consumer.seek(part, ends[part] - 1)
        # One that ends in a transaction's marker, or was compacted away, has nothing there.
        for part, records in (await consumer.getmany(*held, timeout_ms=2_000)).items():
            topic = topics[part.topic]
            newest = max(record.timestamp for record in records)
            topic.newest_ms = max(newest, topic.newest_ms or 0)
    finally:
        await stop_client(consumer)
