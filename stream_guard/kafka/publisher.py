"""Verdicts and dead letters out: batches built here, sent by an idempotent producer, one future a batch.

Theory of operation. ``publish`` queues. One task takes all that is queued, sorts it by the partition that each
record's key hashes to, builds record batches (no task and no future per record) and sends them. A batch that fails
goes back to the queue's head; an error that poisons an idempotent producer, or a batch past its deadline, has the
producer made anew first. A batch that was in truth written is then written twice, with the same verdict ids.

What it must never do: acknowledge a record that the broker has not, or drop one that it refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import structlog
from aiokafka.errors import KafkaError, ProducerClosed

from stream_guard.core.errors import BrokerError, named
from stream_guard.kafka.batches import (
    FATAL,
    by_partition,
    discard_producer,
    make_producer,
    send_to_partition,
    start_producer,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aiokafka import AIOKafkaProducer

    from stream_guard.settings import DeliverySettings, KafkaSettings
    from stream_guard.stream.in_flight import Outgoing
    from stream_guard.telemetry.metrics import Metrics

_log = structlog.get_logger(__name__)
_BACKOFF_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
# Waves under way at once: one is built while the broker writes another. aiokafka keeps a partition's batches in order.
_WAVES_MAX: Final = 4
_WAVE_RECORDS: Final = 2_000


if TYPE_CHECKING:
    _Queued = tuple[Outgoing, Callable[[Sequence[Outgoing]], None]]
    _Outcome = tuple[list[_Queued], BaseException | None]


class KafkaPublisher:
    """A :class:`stream_guard.stream.ports.Publisher` on an idempotent producer."""

    def __init__(
        self, settings: KafkaSettings, delivery: DeliverySettings, metrics: Metrics
    ) -> None:
        self._settings = settings
        self._delivery = delivery
        self._metrics = metrics
        self._producer: AIOKafkaProducer | None = None
        self._queue: deque[_Queued] = deque()
        self._wake = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._unacknowledged = 0
        self._failed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[None] | None = None
        self._failing_since_s: float | None = None
        self._keyless = random.randrange(1 << 16)  # noqa: S311 - only spreads records without a key

    async def start(self) -> None:
        """Connect. Raises BrokerError."""
        try:
            await self._connect()
        except (KafkaError, OSError, TimeoutError) as error:
            message = f"the producer cannot start: {named(error)}"
            raise BrokerError(message) from error
        self._task = asyncio.create_task(self._run(), name="publisher")

    def publish(
        self, outgoing: Sequence[Outgoing], acknowledged: Callable[[Sequence[Outgoing]], None]
    ) -> None:
        """Queue records; see :meth:`stream_guard.stream.ports.Publisher.publish`."""
        self._queue.extend((record, acknowledged) for record in outgoing)
        self._unacknowledged += len(outgoing)
        if outgoing:
            self._empty.clear()
            self._wake.set()

    async def flush(self) -> None:
        """Return once everything queued is acknowledged."""
        await self._empty.wait()

    async def wait_failed(self) -> BaseException:
        """Return the error after which nothing more is sent."""
        return await asyncio.shield(self._failed)

    async def stop(self) -> None:
        """Stop sending, and close the producer within ``delivery.stop_timeout_s``."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._disconnect()

    async def _connect(self) -> None:
        producer = make_producer(self._settings)
        await start_producer(producer, self._settings)
        self._producer = producer

    async def _disconnect(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await discard_producer(producer, timeout_s=self._delivery.stop_timeout_s)

    async def _run(self) -> None:
        try:
            while True:
                await self._wake.wait()
                if self._settings.linger_ms and len(self._queue) < 256:  # noqa: PLR2004 - a fair batch already
                    await asyncio.sleep(self._settings.linger_ms / 1_000)
                await self._send_waves()
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits for a failure
            if not self._failed.done():
                self._failed.set_result(error)

    async def _send_waves(self) -> None:
        """Send all that is queued, some waves at a time, until the broker has it."""
        waves: set[asyncio.Task[_Outcome]] = set()
        try:
            while self._queue or waves:
                while self._queue and len(waves) < _WAVES_MAX:
                    count = min(len(self._queue), _WAVE_RECORDS)
                    items = [self._queue.popleft() for _ in range(count)]
                    waves.add(asyncio.create_task(self._send(items)))
                self._wake.clear()
                woken = asyncio.create_task(self._wake.wait())
                try:
                    await asyncio.wait({*waves, woken}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    woken.cancel()
                if any(wave.done() and wave.result()[1] is not None for wave in waves):
                    await self._settle(waves)
                waves = {wave for wave in waves if not wave.done()}
        finally:
            for wave in waves:
                wave.cancel()

    async def _settle(self, waves: set[asyncio.Task[_Outcome]]) -> None:
        """After a failure: let the other waves end, put back what failed, and make the producer anew."""
        outcomes = await asyncio.gather(*waves)
        failed = [item for items, _ in outcomes for item in items]
        error = next(error for _, error in outcomes if error is not None)
        self._queue.extendleft(reversed(failed))
        self._metrics.repeats.labels("rebuild").inc(len(failed))
        await self._recover(error, len(failed))

    async def _recover(self, error: BaseException, count: int) -> None:
        """Wait, and make the producer anew; raise where that cannot help or has gone on for too long."""
        now_s = time.monotonic()
        if self._failing_since_s is None:
            self._failing_since_s = now_s
        spent_s = now_s - self._failing_since_s
        if isinstance(error, FATAL) or spent_s > self._delivery.publish_timeout_s:
            message = (
                f"{count} verdicts or dead letters could not be produced for {spent_s:.0f} s "
                f"(delivery.publish_timeout_s): {named(error)}"
            )
            raise BrokerError(message) from error
        _log.warning(
            "publish_failed", error=type(error).__name__, records=count, failing_s=round(spent_s, 1)
        )
        # After any failed batch the broker's idea of our sequence numbers is in doubt, so the producer goes.
        await self._disconnect()
        for attempt in range(1_000):
            pause_s = _BACKOFF_S[min(attempt, len(_BACKOFF_S) - 1)]
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            try:
                await self._connect()
            except (KafkaError, OSError, TimeoutError) as again:
                if time.monotonic() - self._failing_since_s > self._delivery.publish_timeout_s:
                    message = f"the producer could not be rebuilt: {named(again)}"
                    raise BrokerError(message) from again
            else:
                self._metrics.producer_rebuilds.inc()
                return

    async def _send(self, queued: list[_Queued]) -> _Outcome:
        """Send once; return what was not acknowledged, in order, and the first error."""
        assert self._producer is not None, "start() comes first"
        waiting: list[tuple[asyncio.Future[Any], list[_Queued]]] = []
        error: BaseException | None = None
        failed: list[_Queued] = []
        deadline_s = time.monotonic() + self._settings.request_timeout_ms / 1_000 + 5
        try:
            async with asyncio.timeout(deadline_s - time.monotonic()):
                self._keyless += 1
                for group in await by_partition(self._producer, queued, self._keyless):
                    await send_to_partition(self._producer, *group, waiting)
        except (KafkaError, OSError, TimeoutError, ProducerClosed) as caught:
            error = caught
        sent = {id(item) for _, batch in waiting for item in batch}
        failed.extend(item for item in queued if id(item) not in sent)
        if waiting:
            timeout_s = max(0.0, deadline_s - time.monotonic())
            await asyncio.wait([future for future, _ in waiting], timeout=timeout_s)
        for future, batch in waiting:
            if not future.done():
                error = error or TimeoutError("a batch was not acknowledged in time")
                future.cancel()
                failed.extend(batch)
            elif future.exception() is not None:
                error = error or future.exception()
                failed.extend(batch)
            else:
                self._failing_since_s = None
                self._acknowledge(batch)
        if failed and error is None:
            error = TimeoutError("some records were not sent")
        return failed, error

    def _acknowledge(self, batch: list[_Queued]) -> None:
        self._unacknowledged -= len(batch)
        start = 0
        # Neighbours nearly always share their callback, so they are told together.
        for end in range(1, len(batch) + 1):
            if end == len(batch) or batch[end][1] is not batch[start][1]:
                batch[start][1]([record for record, _ in batch[start:end]])
                start = end
        if self._unacknowledged == 0:
            self._empty.set()
