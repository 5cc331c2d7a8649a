"""Idempotent producers, shared by the destinations that have not failed on them.

There is one producer as long as nothing fails. A destination that failed gets the newest producer on which it has not
failed, or a new one. A producer that nobody uses any more, and that is not the newest, is closed.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from stream_guard.kafka.batches import discard_producer, make_producer, start_producer

if TYPE_CHECKING:
    from aiokafka import AIOKafkaProducer

    from stream_guard.settings import DeliverySettings, KafkaSettings
    from stream_guard.telemetry.metrics import Metrics


class Lease:
    """A producer that destinations share.

    Attributes:
        producer: started.
        users: destinations that send by it.
    """

    def __init__(self, owner: Producers, producer: AIOKafkaProducer, number: int) -> None:
        self.producer = producer
        self.number = number
        self.users = 0
        self._owner = owner

    def retire(self) -> None:
        """One destination sends by it no more."""
        self.users -= 1
        self._owner.close_unused()


class Producers:
    """Makes, lends and closes producers."""

    def __init__(
        self, settings: KafkaSettings, delivery: DeliverySettings, metrics: Metrics
    ) -> None:
        self._settings = settings
        self._delivery = delivery
        self._metrics = metrics
        self._leases: list[Lease] = []  # the newest last
        self._making = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()
        self._made = 0

    async def start(self) -> None:
        """Make the first one."""
        await self._make()

    @property
    def newest(self) -> AIOKafkaProducer:
        """The newest producer, for questions about topics."""
        return self._leases[-1].producer

    def lease(self) -> Lease:
        """Return the newest, for a destination that has not failed."""
        lease = self._leases[-1]
        lease.users += 1
        return lease

    async def renew(self, failed: Lease | None) -> Lease:
        """Return one that is newer than the one on which a destination failed.

        Raises:
            KafkaError, OSError, TimeoutError: it could not be started.
        """
        async with self._making:
            if failed is not None and self._leases[-1].number <= failed.number:
                await self._make()
                self._metrics.producer_rebuilds.inc()
            lease = self.lease()
        self.close_unused()
        return lease

    async def _make(self) -> None:
        producer = make_producer(self._settings)
        await start_producer(producer, self._settings)
        self._made += 1
        self._leases.append(Lease(self, producer, self._made))

    def close_unused(self) -> None:
        """Close all that nobody uses, but for the newest."""
        unused = [lease for lease in self._leases[:-1] if not lease.users]
        for lease in unused:
            self._leases.remove(lease)
            closing = asyncio.create_task(self._close(lease), name="producer-close")
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def _close(self, lease: Lease) -> None:
        await discard_producer(lease.producer, timeout_s=self._delivery.stop_timeout_s)

    async def stop(self) -> None:
        """Close all, each within ``delivery.stop_timeout_s``."""
        leases, self._leases = self._leases, []
        await asyncio.gather(*(self._close(lease) for lease in leases), *self._closing)
