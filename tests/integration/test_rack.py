"""With a rack, posts are fetched from the replica in it; without one, from the leader."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiokafka.admin import AIOKafkaAdminClient
from prometheus_client import CollectorRegistry

from stream_guard.core.kafka_types import Partition
from stream_guard.kafka.source import KafkaSource
from stream_guard.settings import DeliverySettings, KafkaSettings
from stream_guard.stream.ports import NO_BOUND
from stream_guard.telemetry.metrics import Metrics
from tests.hang import HANG_S
from tests.integration.harness import post, produce

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.testing import Broker

TOPICS = ("posts", "stream-guard.verdicts", "stream-guard.dead-letters")


class Listener:
    """Notes the assignment."""

    def __init__(self) -> None:
        self.assigned = asyncio.Event()

    async def on_assigned(self, partitions: Sequence[Partition]) -> None:
        del partitions
        self.assigned.set()

    async def on_revoked(self, partitions: Sequence[Partition]) -> None:
        del partitions


async def leader_of(bootstrap: str) -> int:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        (topic,) = await admin.describe_topics(["posts"])
        return int(topic["partitions"][0]["leader"])
    finally:
        await admin.close()


async def fetched_from(bootstrap: str, rack: str | None) -> int | None:
    """Read all posts; return the broker that the leader sent us to, or None."""
    settings = KafkaSettings(
        bootstrap_servers=bootstrap,
        topics=("posts",),
        group_id=f"group-{rack}",
        client_rack=rack,
        session_timeout_ms=6_000,
        heartbeat_interval_ms=500,
    )
    source = KafkaSource(settings, DeliverySettings(), Metrics(CollectorRegistry()))
    listener, partition, count = Listener(), Partition("posts", 0), 0
    await source.start(listener)
    try:
        async with asyncio.timeout(HANG_S):
            await listener.assigned.wait()
            source.seek(partition, (await source.committed([partition]))[partition])
            while count < 20:
                found = await source.poll(
                    [partition], records_max=100, bytes_max=NO_BOUND, timeout_ms=200
                )
                count += len(found.get(partition, ()))
        # Which broker answers is nowhere else: records are the same on all of them.
        cached = source._consumer._fetcher._preferred_read_replica  # type: ignore[union-attr]
        return next((node for node, _ in cached.values()), None)
    finally:
        await source.stop()


async def test_posts_come_from_the_replica_in_our_rack(three_brokers: Broker) -> None:
    bootstrap = three_brokers.bootstrap_servers
    await asyncio.to_thread(three_brokers.create_topics, *TOPICS)
    await produce(bootstrap, "posts", map(post, range(20)))
    leader = await leader_of(bootstrap)
    near = leader % 3 + 1
    assert await fetched_from(bootstrap, f"rack-{near}") == near
    assert await fetched_from(bootstrap, None) is None
