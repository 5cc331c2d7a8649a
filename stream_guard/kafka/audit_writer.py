"""Writes entries of the review server's audit trail to their topic."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiokafka.errors import KafkaError

from stream_guard.core.errors import BrokerError, named
from stream_guard.kafka.batches import discard_producer, make_producer, start_producer
from stream_guard.records.review_audit import encode_audit_entry

if TYPE_CHECKING:
    from typing import Any

    from aiokafka import AIOKafkaProducer

    from stream_guard.settings import KafkaSettings


class AuditWriter:
    """One producer for all entries. After a failure the next entry gets a new producer.

    Args:
        settings: with ``audit_topic``.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._producer: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()

    async def write(self, entry: dict[str, Any]) -> None:
        """Return once the broker has acknowledged an entry.

        Raises:
            BrokerError: it was not acknowledged within ``kafka.request_timeout_ms``; it may be in the topic.
        """
        key, value, headers = encode_audit_entry(entry)
        topic = self._settings.audit_topic
        timeout_s = self._settings.request_timeout_ms / 1_000
        producer = None
        try:
            async with asyncio.timeout(timeout_s):
                producer = await self._started()
                await producer.send_and_wait(topic, value, key=key, headers=headers)
        except (KafkaError, OSError, TimeoutError) as error:
            if producer is not None and producer is self._producer:
                await self.close()
            message = f"{topic!r} (kafka.audit_topic) could not be written: {named(error)}"
            raise BrokerError(message) from error

    async def _started(self) -> AIOKafkaProducer:
        async with self._starting:
            if self._producer is None:
                producer = make_producer(self._settings)
                await start_producer(producer, self._settings)
                self._producer = producer
            return self._producer

    async def close(self) -> None:
        """Close the producer."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await discard_producer(producer, timeout_s=self._settings.request_timeout_ms / 1_000)
