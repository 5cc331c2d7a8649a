"""Exactly once: what the records of a partition owe, and the partition's position, in one transaction each.

Each assigned partition has a *session*: a claim that fences the partition's earlier owner. Judgements come in any
order, but a position can only say "all before this one are done". So an output is held until everything before it is
ready as well. The run of ready records at the partition's head goes into one transaction, together with the position
after it. There is one transaction at a time per partition. Nothing is acknowledged before its transaction is, so what
is held counts as in flight, and the limits on records, bytes, tokens and span bound it.

When a transaction fails, or nobody knows whether it did, the session is void and the *epoch* of the partition ends.
What else its records owe is dropped. The partition is claimed again, which settles the doubt at the broker, and it is
read again from its committed position. Nothing of an ended epoch is written.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from typing import TYPE_CHECKING

import structlog

from stream_guard.core.backoff import pause_s
from stream_guard.core.errors import BrokerError, DoubtError, LimitError
from stream_guard.stream.in_flight import acknowledge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from stream_guard.core.kafka_types import Partition
    from stream_guard.settings import DeliverySettings
    from stream_guard.stream.in_flight import Acknowledged, Outgoing, Queued
    from stream_guard.stream.offsets import PartitionOffsets
    from stream_guard.stream.ports import Session, Transactor
    from stream_guard.telemetry.metrics import Metrics

    _Held = list[Queued]

_log = structlog.get_logger(__name__)


class _Lane:
    """One partition: its session, and what its records owe until it is written.

    Attributes:
        offsets: the epoch; None until it begins.
        held: by offset, the outputs of a record.
        ready: offsets of records for which all that they owe is held.
        wake: something became ready.
        full: there is no use in waiting for company.
        hurried: nor will there ever be.
    """

    __slots__ = ("full", "held", "hurried", "offsets", "ready", "session", "task", "wake")

    def __init__(self, session: Session) -> None:
        self.session = session
        self.offsets: PartitionOffsets | None = None
        self.held: dict[int, _Held] = {}
        self.ready: set[int] = set()
        self.wake = asyncio.Event()
        self.full = asyncio.Event()
        self.hurried = False
        self.task: asyncio.Task[None] | None = None


class TransactionalPublisher:
    """A :class:`stream_guard.stream.ports.Transactions`.

    Args:
        transactor: opens sessions.
        delivery: intervals, sizes and deadlines.
        metrics: where transactions are counted.
        fenced_pause_s: how long a partition is left alone after somebody else has claimed it: long enough for the
            group to revoke it, so that a returning member does not fence the new owner.

    Attributes:
        replace: called with the outputs of each transaction directly before it; returns those to write.
    """

    def __init__(
        self,
        transactor: Transactor,
        delivery: DeliverySettings,
        metrics: Metrics,
        *,
        fenced_pause_s: float,
    ) -> None:
        self._transactor = transactor
        self._delivery = delivery
        self._metrics = metrics
        self._fenced_pause_s = fenced_pause_s
        self._lanes: dict[Partition, _Lane] = {}
        self._claims: set[Partition] = set()
        # Time spent on failures since the last written transaction.
        self._spent_s: dict[Partition, float] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._unwritten = 0
        self._empty = asyncio.Event()
        self._empty.set()
        self._failed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self._doubted: Callable[[PartitionOffsets, str], None] = _nobody_listens
        self.replace: Callable[[_Held], _Held] = _as_they_are

    def listen(self, doubted: Callable[[PartitionOffsets, str], None]) -> None:
        """See :meth:`stream_guard.stream.ports.Transactions.listen`."""
        self._doubted = doubted

    async def start(self) -> None:
        """Do nothing: each claim connects for itself."""

    # Epochs

    async def claim(self, partition: Partition, cause: str) -> None:
        """See :meth:`stream_guard.stream.ports.Transactions.claim`.

        Raises:
            LimitError: there are more partitions than ``delivery.transaction_producers_max``.
            BrokerError: it did not succeed within ``delivery.publish_timeout_s``.
        """
        stale = self._lanes.pop(partition, None)
        if stale is not None:
            await self._close(stale)
        self._claims.add(partition)
        self._check_count()
        if cause == "fenced":
            await asyncio.sleep(self._fenced_pause_s)
        for attempt in itertools.count():
            began_s = time.monotonic()
            try:
                session = await self._transactor.claim(partition)
            except DoubtError as error:
                await asyncio.sleep(pause_s(attempt))
                self._spend(partition, began_s, error)
                _log.warning("claim_failed", partition=_name(partition), error=str(error))
            else:
                self._lanes[partition] = _Lane(session)
                return

    def begin(self, offsets: PartitionOffsets) -> None:
        """See :meth:`stream_guard.stream.ports.Transactions.begin`."""
        lane = self._lanes[offsets.partition]
        assert lane.offsets is None, "one epoch for each claim"
        lane.offsets = offsets
        lane.task = asyncio.create_task(
            self._run(lane, offsets), name=f"transactions-{_name(offsets.partition)}"
        )

    def hurry(self) -> None:
        """See :meth:`stream_guard.stream.ports.Transactions.hurry`."""
        for lane in self._lanes.values():
            lane.hurried = True
            lane.full.set()

    async def release(self, partitions: Iterable[Partition]) -> None:
        """See :meth:`stream_guard.stream.ports.Transactions.release`."""
        lanes = []
        for partition in partitions:
            self._claims.discard(partition)
            self._spent_s.pop(partition, None)
            lane = self._lanes.pop(partition, None)
            if lane is not None:
                lanes.append(lane)
        await asyncio.gather(*(self._close(lane) for lane in lanes))

    # Publisher

    def publish(self, outgoing: Sequence[Outgoing], acknowledged: Acknowledged) -> None:
        """Hold what records owe until it can be written; what an ended epoch owes is dropped."""
        for sent in outgoing:
            origin = sent.origin
            lane = self._lanes.get(origin.offsets.partition)
            if lane is None or lane.offsets is not origin.offsets or origin.offsets.revoked:
                continue
            offset = origin.record.offset
            held = lane.held.setdefault(offset, [])
            held.append((sent, acknowledged))
            self._unwritten += 1
            self._empty.clear()
            if len(held) >= origin.owed:
                lane.ready.add(offset)
                lane.wake.set()
                if len(lane.ready) >= self._delivery.transaction_records_max:
                    lane.full.set()

    async def flush(self) -> None:
        """Return once everything handed in is written or dropped."""
        await self._empty.wait()

    async def wait_failed(self) -> BaseException:
        """Return the error after which nothing more is written."""
        return await asyncio.shield(self._failed)

    async def stop(self) -> None:
        """Give up everything that is open, each session within its own deadline."""
        await self.release(tuple(self._lanes))
        if self._closing:
            await asyncio.wait(self._closing)

    # A lane's life

    async def _run(self, lane: _Lane, offsets: PartitionOffsets) -> None:
        """Write transactions until the epoch ends."""
        try:
            while True:
                # The timeout is for skipped records, which owe nothing and so do not wake the lane.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._delivery.commit_interval_ms / 1_000):
                        await lane.wake.wait()
                lane.wake.clear()
                await self._write_ready(lane, offsets)
                await self._write_skipped(lane, offsets)
        except DoubtError as error:
            self._metrics.transactions.labels(error.cause).inc()
            _log.warning(
                "transaction_in_doubt", partition=_name(offsets.partition), error=str(error)
            )
            self._end(lane, offsets, error)
        except Exception as error:  # noqa: BLE001 - returned by wait_failed()
            self._fail(error)

    async def _write_ready(self, lane: _Lane, offsets: PartitionOffsets) -> None:
        delivery = self._delivery
        while offsets.settled(lane.ready, 1):
            if len(lane.ready) < delivery.transaction_records_max and not lane.full.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(delivery.transaction_interval_ms / 1_000):
                        await lane.full.wait()
            head = offsets.settled(lane.ready, delivery.transaction_records_max)
            position = offsets.position_after(len(head))
            items = self.replace([item for offset in head for item in lane.held[offset]])
            began_s = time.monotonic()
            try:
                written = [sent for sent, _ in items if not sent.dropped]
                await lane.session.write(written, position)
            except DoubtError as error:
                self._spend(offsets.partition, began_s, error)
                raise
            self._metrics.transactions.labels("committed").inc()
            self._spent_s.pop(offsets.partition, None)
            for offset in head:
                del lane.held[offset]
            lane.ready.difference_update(head)
            if not lane.hurried and len(lane.ready) < delivery.transaction_records_max:
                lane.full.clear()
            # Before the acknowledgements, so that no one takes the new position for one to be committed.
            offsets.committed = position
            self._let_go(len(items))
            acknowledge(items)

    async def _write_skipped(self, lane: _Lane, offsets: PartitionOffsets) -> None:
        """Commit the position that skipped records have moved."""
        position = offsets.committable()
        if position is None:
            return
        began_s = time.monotonic()
        try:
            await lane.session.write([], position)
        except DoubtError as error:
            self._spend(offsets.partition, began_s, error)
            raise
        self._metrics.transactions.labels("committed").inc()
        self._spent_s.pop(offsets.partition, None)
        offsets.committed = position

    def _end(self, lane: _Lane, offsets: PartitionOffsets, error: DoubtError) -> None:
        """Void the lane, and have the partition read again."""
        if self._lanes.get(offsets.partition) is lane:
            del self._lanes[offsets.partition]
        offsets.revoked = True
        lane.task = None
        closing = asyncio.create_task(self._close(lane), name="transactions-close")
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        self._doubted(offsets, error.cause)

    async def _close(self, lane: _Lane) -> None:
        if lane.offsets is not None:
            lane.offsets.revoked = True
        if lane.task is not None:
            lane.task.cancel()
            await asyncio.wait([lane.task])
        self._let_go(sum(map(len, lane.held.values())))
        lane.held.clear()
        lane.ready.clear()
        await lane.session.close()

    def _let_go(self, count: int) -> None:
        self._unwritten -= count
        if self._unwritten == 0:
            self._empty.set()

    # Limits

    def _check_count(self) -> None:
        limit = self._delivery.transaction_producers_max
        if len(self._claims) > limit:
            message = (
                f"{len(self._claims)} partitions are assigned to this member, and delivery.transaction_producers_max "
                f"(STREAM_GUARD_DELIVERY__TRANSACTION_PRODUCERS_MAX) is {limit}, since in exactly-once mode each has a "
                "producer of its own; run more members, or raise it"
            )
            raise LimitError(message)

    def _spend(self, partition: Partition, began_s: float, error: DoubtError) -> None:
        """Count a failure's time; raise BrokerError where it has gone on for too long."""
        spent_s = self._spent_s.get(partition, 0.0) + time.monotonic() - began_s
        self._spent_s[partition] = spent_s
        if spent_s > self._delivery.publish_timeout_s:
            message = (
                f"{_name(partition)}: no transaction could be written for {spent_s:.0f} s "
                f"(delivery.publish_timeout_s): {error}"
            )
            raise BrokerError(message) from error

    def _fail(self, error: BaseException) -> None:
        if not self._failed.done():
            self._failed.set_result(error)


def _name(partition: Partition) -> str:
    return f"{partition.topic}/{partition.partition}"


def _as_they_are(items: _Held) -> _Held:
    return items


def _nobody_listens(offsets: PartitionOffsets, cause: str) -> None:
    raise AssertionError(f"listen() comes first: {offsets.partition} is in doubt ({cause})")
