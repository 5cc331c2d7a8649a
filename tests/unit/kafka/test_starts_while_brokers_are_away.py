"""A start waits for a coordinator and for the breaker's topic, as long as a running service would."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiokafka.errors import NodeNotReadyError
from prometheus_client import CollectorRegistry

from stream_guard.kafka import breaker_topic, source
from stream_guard.kafka.breaker_topic import KafkaBreakerLog
from stream_guard.kafka.source import KafkaSource
from stream_guard.settings import DeliverySettings, KafkaSettings
from stream_guard.telemetry.metrics import Metrics

if TYPE_CHECKING:
    import pytest

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

    async def found(_: object) -> set[str]:
        return {"posts"}

    monkeypatch.setattr(source, "AIOKafkaConsumer", SlowConsumer)
    monkeypatch.setattr(source, "check_topics", found)
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
