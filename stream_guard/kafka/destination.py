"""One partition of a topic that we write: its queue, its batches on their way, and its deadline.

Each destination sends for itself, so one without a leader delays no other. A batch that failed goes back to the head of
the queue, and the destination moves to a producer on which it has not failed: an idempotent producer's sequence is in
doubt for that partition after a failure, and for that partition alone. The deadline, ``delivery.publish_timeout_s``,
counts from the destination's first failure since its last acknowledgement.

The records of a batch that the topic refuses as too large are sent again, each alone. One that is refused alone is sent
in its smaller form, once.

Records are acknowledged only after the broker has them. A batch that was written although its answer was lost is
written twice, with the same verdict ids.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import structlog
from aiokafka.errors import KafkaError, ProducerClosed

from stream_guard.core.backoff import pause_s
from stream_guard.core.errors import BrokerError, named
from stream_guard.kafka.batches import FATAL, TOO_LARGE, fill_batch, shrink_refused
from stream_guard.kafka.permissions import explain_denial

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_guard.kafka.producers import Lease, Producers
    from stream_guard.settings import DeliverySettings
    from stream_guard.stream.in_flight import Outgoing, Queued
    from stream_guard.telemetry.metrics import Metrics

_log = structlog.get_logger(__name__)
# Batches on their way at once: one is built while the broker writes another. aiokafka keeps their order.
_BATCHES_MAX: Final = 4


class Destination:
    """Sends the records of one partition.

    Args:
        topic, partition: where to.
        producers: lends producers.
        delivery: the deadline.
        timeout_s: how long a batch may take, in s; aiokafka's own deadline comes first.
        metrics: where records that are sent again are counted.
        acknowledge: called with records that the broker has.
    """

    def __init__(
        self,
        topic: str,
        partition: int,
        *,
        producers: Producers,
        delivery: DeliverySettings,
        timeout_s: float,
        metrics: Metrics,
        acknowledge: Callable[[list[Queued]], None],
    ) -> None:
        self.queue: deque[Queued] = deque()
        self.wake = asyncio.Event()
        self._topic = topic
        self._partition = partition
        self._producers = producers
        self._delivery = delivery
        self._timeout_s = timeout_s
        self._metrics = metrics
        self._acknowledge = acknowledge
        self._lease: Lease | None = None
        self._sent: deque[tuple[asyncio.Future[Any], list[Queued], float]] = deque()
        self._failing_since_s: float | None = None
        self._failures = 0
        self._alone: set[Outgoing] = set()  # they were in a batch that was too large

    async def run(self) -> None:
        """Send until cancelled.

        Raises:
            BrokerError: the deadline has passed, or no retry can help.
        """
        while True:
            await self._wait()
            try:
                self._settle()
                # Records that are sent alone may be refused: one at a time keeps their order.
                while self.queue and len(self._sent) < (1 if self._alone else _BATCHES_MAX):
                    await self._send()
            except (KafkaError, OSError, TimeoutError, ProducerClosed) as error:
                await self._recover(error)

    async def _wait(self) -> None:
        """Return once there is something to do, or the oldest batch is late."""
        if self._sent and self._sent[0][0].done():
            return
        late_s = self._sent[0][2] - time.monotonic() if self._sent else None
        try:
            async with asyncio.timeout(late_s):
                await self.wake.wait()
        except TimeoutError:
            pass  # _settle() raises it
        self.wake.clear()

    def _settle(self) -> None:
        """Acknowledge what the broker has, in order; raise the error of the first batch that failed."""
        while self._sent:
            future, members, late_s = self._sent[0]
            if not future.done():
                if time.monotonic() >= late_s:
                    raise TimeoutError("a batch was not acknowledged in time")
                return
            if future.cancelled():
                raise ProducerClosed
            error = future.exception()
            if error is not None:
                raise error
            self._sent.popleft()
            self._failing_since_s = None
            self._failures = 0
            self._finish(members)

    def _finish(self, members: list[Queued]) -> None:
        if self._alone:
            self._alone.difference_update(record for record, _ in members)
        self._acknowledge(members)

    async def _send(self) -> None:
        """Hand one batch to the producer, which waits until it has taken up the last one."""
        if self._lease is None:
            self._lease = self._producers.lease()
        producer = self._lease.producer
        batch = producer.create_batch()
        members = fill_batch(batch, self.queue, self._alone)
        late_s = time.monotonic() + self._timeout_s
        try:
            async with asyncio.timeout(self._timeout_s):
                future = await producer.send_batch(batch, self._topic, partition=self._partition)
        except BaseException:
            self.queue.extendleft(reversed(members))
            raise
        self._sent.append((future, members, late_s))
        future.add_done_callback(lambda _: self.wake.set())

    async def _recover(self, error: BaseException) -> None:
        """Put back what failed, wait, and go on with another producer; raise where that cannot help."""
        # Batches after the failed one would be out of order: they settle first.
        open_ = [future for future, _, late_s in self._sent if not future.done()]
        if open_:
            left_s = max(0.0, self._sent[-1][2] - time.monotonic())
            await asyncio.wait(open_, timeout=left_s)
        again: list[Queued] = []
        for future, members, _ in self._sent:
            if future.done() and not future.cancelled() and future.exception() is None:
                self._finish(members)
            else:
                self._prepare_refused(future, members)
                future.cancel()
                again.extend(members)
        self._sent.clear()
        self.queue.extendleft(reversed(again))
        self._metrics.repeats.labels("rebuild").inc(len(again))
        now_s = time.monotonic()
        if self._failing_since_s is None:
            self._failing_since_s = now_s
        self._check_deadline(error, len(again))
        _log.warning(
            "publish_failed",
            error=type(error).__name__,
            partition=f"{self._topic}/{self._partition}",
            records=len(again),
            failing_s=round(now_s - self._failing_since_s, 1),
        )
        failed, self._lease = self._lease, None
        if failed is not None:
            failed.retire()
        while True:
            await asyncio.sleep(pause_s(self._failures))
            self._failures += 1
            try:
                self._lease = await self._producers.renew(failed)
            except (KafkaError, OSError, TimeoutError) as refused:
                self._check_deadline(refused, len(self.queue))
            else:
                self.wake.set()
                return

    def _prepare_refused(self, future: asyncio.Future[Any], members: list[Queued]) -> None:
        """Where a batch was too large, have its records sent alone, or a single one in its smaller form."""
        error = future.exception() if future.done() and not future.cancelled() else None
        if not isinstance(error, TOO_LARGE):
            return
        if len(members) == 1:
            shrink_refused(members[0][0], error)
        self._alone.update(record for record, _ in members)

    def _check_deadline(self, error: BaseException, count: int) -> None:
        assert self._failing_since_s is not None, "it is failing"
        spent_s = time.monotonic() - self._failing_since_s
        # What is too large is sent in another way.
        if isinstance(error, FATAL) and not isinstance(error, TOO_LARGE):
            message = (
                f"{self._topic}/{self._partition}: the broker refuses verdicts or dead letters: "
                f"{explain_denial(error, topic=self._topic)}; change the topic or its permissions"
            )
            raise BrokerError(message) from error
        if spent_s > self._delivery.publish_timeout_s:
            message = (
                f"{self._topic}/{self._partition}: {count} verdicts or dead letters could not be produced for "
                f"{spent_s:.0f} s (delivery.publish_timeout_s): {named(error)}"
            )
            raise BrokerError(message) from error
