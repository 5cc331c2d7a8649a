"""A start while one of three brokers is away, and known to be there still."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from stream_guard.kafka.input_topics import existing_topics
from stream_guard.settings import KafkaSettings

if TYPE_CHECKING:
    from stream_guard.testing import Broker


async def test_a_start_finds_its_topics_though_the_broker_that_it_asks_first_is_away(
    three_brokers: Broker,
) -> None:
    await asyncio.to_thread(three_brokers.create_topics, "posts")
    settings = KafkaSettings(bootstrap_servers=three_brokers.bootstrap_servers)
    await asyncio.to_thread(three_brokers.kill, 1)
    # For some seconds the others still name it, and the client asks any that is named.
    for _ in range(40):
        assert "posts" in await existing_topics(settings)
