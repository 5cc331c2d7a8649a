"""A start waits for brokers, a coordinator and the breaker's topic, as long as a running service would."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError, NodeNotReadyError
from prometheus_client import CollectorRegistry

from stream_guard.core.errors import BrokerAwayError, BrokerError
from stream_guard.kafka import breaker_topic, input_topics, source
from stream_guard.kafka.breaker_topic import KafkaBreakerLog
from stream_guard.kafka.input_topics import wait_for_topics
from stream_guard.kafka.protocol_errors import may_pass
from stream_guard.kafka.source import KafkaSource
from stream_guard.settings import DeliverySettings, KafkaSettings
from stream_guard.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

KAFKA = KafkaSettings(topics=("posts",), rebalance_timeout_ms=1_000)


async def test_a_coordinator_that_comes_back_in_time_ends_no_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class SlowConsumer:
        def __init__(self, **_: object) -> None:
            self.joined = False

        def subscribe(self, *_: object, **__: object) -> None: ...

        async def start(self) -> None:
            await asyncio.sleep(1.2)  # longer than a rebalance may take
            self.joined = True

    async def found(*_: object) -> set[str]:
        return {"posts"}

    monkeypatch.setattr(source, "AIOKafkaConsumer", SlowConsumer)
    monkeypatch.setattr(source, "wait_for_topics", found)
    started = KafkaSource(KAFKA, DeliverySettings(), Metrics(CollectorRegistry()))
    listener: Any = None
    await started.start(listener)
    consumer: Any = started._consumer
    assert consumer.joined


async def test_the_breakers_topic_is_looked_for_again_while_a_broker_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = 0

    async def ensure(_: object) -> None:
        nonlocal asked
        asked += 1
        if asked < 3:
            raise NodeNotReadyError if asked == 1 else TimeoutError

    async def connect(_: object) -> None: ...

    async def follow(_: object) -> None: ...

    monkeypatch.setattr(breaker_topic, "ensure_breaker_topic", ensure)
    monkeypatch.setattr(breaker_topic, "pause_s", lambda _: 0.0)
    monkeypatch.setattr(KafkaBreakerLog, "_connect", connect)
    monkeypatch.setattr(KafkaBreakerLog, "_follow", follow)
    log = KafkaBreakerLog(KAFKA, DeliverySettings())
    await log.start(lambda _: None)
    assert asked == 3
    await log.close([])


def answers(*errors: BrokerError) -> Callable[..., Awaitable[set[str]]]:
    """Return a search for topics that fails in these ways first."""
    left = list(errors)

    async def found(*_: object) -> set[str]:
        if left:
            raise left.pop(0)
        return {"posts"}

    return found


async def test_a_start_waits_for_brokers_that_are_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_topics, "pause_s", lambda _: 0.0)
    monkeypatch.setattr(input_topics, "check_topics", answers(*[BrokerAwayError("away")] * 3))
    assert await wait_for_topics(KAFKA, 60) == {"posts"}


async def test_a_start_does_not_wait_for_longer_than_it_may(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(input_topics, "check_topics", answers(BrokerAwayError("away")))
    with pytest.raises(BrokerAwayError, match="away"):
        await wait_for_topics(KAFKA, 0)


async def test_a_start_does_not_wait_where_a_broker_refuses_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(input_topics, "check_topics", answers(BrokerError("wrong password")))
    with pytest.raises(BrokerError, match="wrong password"):
        await wait_for_topics(KAFKA, 60)


async def test_no_broker_at_all_is_an_error_that_may_pass() -> None:
    client = AIOKafkaClient(bootstrap_servers="127.0.0.1:9")
    with pytest.raises(KafkaError) as caught:
        await client.fetch_all_metadata()
    assert may_pass(caught.value)
    assert not may_pass(KafkaError("Unexpected error during data retrieval"))
    await client.close()
