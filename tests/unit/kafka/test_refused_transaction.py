"""A transaction whose topic is refused ends at once: aiokafka leaves its batches without an outcome."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import TopicAuthorizationFailedError

from stream_guard.core.errors import BrokerError
from stream_guard.core.kafka_types import Partition
from stream_guard.kafka.transactions import KafkaSession, RefusedOutputs
from stream_guard.settings import DeliverySettings
from stream_guard.stream.in_flight import Outgoing
from tests.in_flight import in_flight


class Refused:
    """A producer as aiokafka's is after the broker has refused a topic to its transaction."""

    def __init__(self) -> None:
        self.pending: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._txn_manager = SimpleNamespace(
            _transaction_waiter=asyncio.get_running_loop().create_future()
        )

    async def begin_transaction(self) -> None:
        self._txn_manager._transaction_waiter.set_exception(
            TopicAuthorizationFailedError({"verdicts"})
        )

    async def partitions_for(self, _topic: str) -> set[int]:
        return {0}

    def create_batch(self) -> Any:  # noqa: ANN401
        return SimpleNamespace(append=lambda **_: object(), close=lambda: None)

    async def send_batch(self, *_: object, **__: object) -> asyncio.Future[Any]:
        return self.pending


async def test_it_does_not_wait_for_the_transaction_s_timeout() -> None:
    producer = Refused()
    session = KafkaSession(
        producer,
        "group/posts/0",
        Partition("posts", 0),
        "group",
        DeliverySettings(transaction_timeout_ms=600_000),
        RefusedOutputs(),
    )
    outgoing = [Outgoing("verdicts", b"k", b"v", [], in_flight())]
    with pytest.raises(BrokerError, match="access control lists forbid topic verdicts"):
        await session.write(outgoing, 1)
    assert producer.pending.cancelled()
