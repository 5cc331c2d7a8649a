"""Verdicts and dead letters out, by idempotent producers: a queue, a router, and a sender for each partition written.

``publish`` queues. The router sorts what is queued by the partition that each record's key hashes to, and hands it to
that partition's :class:`~stream_guard.kafka.destination.Destination`, which builds batches and sends them. There is no
task and no future for each record.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from typing import TYPE_CHECKING

import structlog
from aiokafka.errors import KafkaError

from stream_guard.core.backoff import pause_s
from stream_guard.core.errors import BrokerError, named
from stream_guard.kafka.batches import FATAL, partition_of
from stream_guard.kafka.destination import Destination
from stream_guard.kafka.permissions import explain_denial
from stream_guard.kafka.producers import Producers
from stream_guard.stream.in_flight import acknowledge

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from stream_guard.settings import DeliverySettings, KafkaSettings
    from stream_guard.stream.in_flight import Acknowledged, Outgoing, Queued
    from stream_guard.telemetry.metrics import Metrics

_log = structlog.get_logger(__name__)
_FAIR_BATCH = 256


class KafkaPublisher:
    """A :class:`stream_guard.stream.ports.Publisher` on idempotent producers."""

    def __init__(
        self, settings: KafkaSettings, delivery: DeliverySettings, metrics: Metrics
    ) -> None:
        self._settings = settings
        self._delivery = delivery
        self._metrics = metrics
        self._producers = Producers(settings, delivery, metrics)
        self._topics: dict[str, _Topic] = {}
        self._empty = asyncio.Event()
        self._empty.set()
        self._unacknowledged = 0
        self._failed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Connect. Raises BrokerError."""
        try:
            await self._producers.start()
        except (KafkaError, OSError, TimeoutError) as error:
            message = f"the producer cannot start: {named(error)}"
            raise BrokerError(message) from error

    def publish(self, outgoing: Sequence[Outgoing], acknowledged: Acknowledged) -> None:
        """Queue records; see :meth:`stream_guard.stream.ports.Publisher.publish`."""
        if not outgoing:
            return
        self._unacknowledged += len(outgoing)
        self._empty.clear()
        for record in outgoing:
            topic = self._topics.get(record.topic)
            if topic is None:
                topic = self._add_topic(record.topic)
            topic.queue.append((record, acknowledged))
            topic.wake.set()

    async def flush(self) -> None:
        """Return once everything queued is acknowledged."""
        await self._empty.wait()

    async def wait_failed(self) -> BaseException:
        """Return the error after which nothing more is sent."""
        return await asyncio.shield(self._failed)

    async def stop(self) -> None:
        """Stop sending, and close the producers within ``delivery.stop_timeout_s``."""
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._producers.stop()

    def _add_topic(self, name: str) -> _Topic:
        topic = self._topics[name] = _Topic(name)
        self._begin(self._route(topic), f"publisher {name}")
        return topic

    def _begin(self, running: Coroutine[None, None, None], name: str) -> None:
        task = asyncio.create_task(self._watch(running), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _watch(self, running: Coroutine[None, None, None]) -> None:
        try:
            await running
        except Exception as error:  # noqa: BLE001 - returned by wait_failed()
            if not self._failed.done():
                self._failed.set_result(error)

    async def _route(self, topic: _Topic) -> None:
        """Hand a topic's records to its partitions, until cancelled."""
        linger_s = self._settings.linger_ms / 1_000
        while True:
            await topic.wake.wait()
            if linger_s and len(topic.queue) < _FAIR_BATCH:
                await asyncio.sleep(linger_s)
            count = await self._partitions(topic)
            topic.wake.clear()
            topic.keyless += 1
            queue = topic.queue
            touched: set[int] = set()
            while queue:
                item = queue.popleft()
                partition = partition_of(item[0].key, topic.keyless, count)
                destination = topic.destinations.get(partition)
                if destination is None:
                    destination = self._add_destination(topic, partition)
                destination.queue.append(item)
                touched.add(partition)
            for partition in touched:
                topic.destinations[partition].wake.set()

    async def _partitions(self, topic: _Topic) -> int:
        """Return how many partitions a topic has; retried until ``delivery.publish_timeout_s``."""
        since_s, failures = time.monotonic(), 0
        while True:
            try:
                return len(await self._producers.newest.partitions_for(topic.name))
            except (KafkaError, OSError, TimeoutError) as error:
                spent_s = time.monotonic() - since_s
                if isinstance(error, FATAL):
                    message = f"{topic.name}: cannot be written: {explain_denial(error, topic=topic.name)}"
                    raise BrokerError(message) from error
                if spent_s > self._delivery.publish_timeout_s:
                    message = (
                        f"{topic.name}: {len(topic.queue)} verdicts or dead letters could not be produced for "
                        f"{spent_s:.0f} s (delivery.publish_timeout_s): {named(error)}"
                    )
                    raise BrokerError(message) from error
                _log.warning("publish_failed", error=type(error).__name__, topic=topic.name)
                await asyncio.sleep(pause_s(failures))
                failures += 1

    def _add_destination(self, topic: _Topic, partition: int) -> Destination:
        destination = topic.destinations[partition] = Destination(
            topic.name,
            partition,
            producers=self._producers,
            delivery=self._delivery,
            timeout_s=self._settings.request_timeout_ms / 1_000 + 5,
            metrics=self._metrics,
            acknowledge=self._acknowledge,
        )
        self._begin(destination.run(), f"publisher {topic.name}/{partition}")
        return destination

    def _acknowledge(self, batch: list[Queued]) -> None:
        self._unacknowledged -= len(batch)
        acknowledge(batch)
        if self._unacknowledged == 0:
            self._empty.set()


class _Topic:
    """A topic that we write.

    Attributes:
        queue: records not routed yet.
        wake: something was queued.
        destinations: by partition number.
        keyless: spreads records without a key.
    """

    __slots__ = ("destinations", "keyless", "name", "queue", "wake")

    def __init__(self, name: str) -> None:
        self.name = name
        self.queue: deque[Queued] = deque()
        self.wake = asyncio.Event()
        self.destinations: dict[int, Destination] = {}
        self.keyless = random.randrange(1 << 16)  # noqa: S311 - only spreads records without a key
