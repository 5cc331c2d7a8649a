"""Writes one decision to the decisions topic."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiokafka.errors import KafkaError

from stream_guard.core.errors import BrokerError, named
from stream_guard.kafka.batches import discard_producer, make_producer, start_producer
from stream_guard.records.decision import encode_decision

if TYPE_CHECKING:
    from stream_guard.records.decision import Decision
    from stream_guard.settings import KafkaSettings


async def write_decision(settings: KafkaSettings, decision: Decision) -> None:
    """Write a decision, and return once the broker has acknowledged it.

    Raises:
        BrokerError: it was not acknowledged within ``kafka.request_timeout_ms``.
    """
    key, value, headers = encode_decision(decision)
    producer = make_producer(settings)
    timeout_s = settings.request_timeout_ms / 1_000
    try:
        await start_producer(producer, settings)
        async with asyncio.timeout(timeout_s):
            await producer.send_and_wait(settings.decision_topic, value, key=key, headers=headers)
    except (KafkaError, OSError, TimeoutError) as error:
        message = f"{settings.decision_topic!r} (kafka.decision_topic) could not be written: {named(error)}"
        raise BrokerError(message) from error
    finally:
        await discard_producer(producer, timeout_s=timeout_s)
