"""The loop round the pipeline: poll, accept, dispatch, commit; rebalance and drain.

What it must never do: commit for a partition that was lost, or leave a drain without a deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

import structlog

from stream_guard.errors import BrokerError
from stream_guard.offsets import PartitionOffsets
from stream_guard.stall import Head, Progress

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from stream_guard.pipeline import Pipeline
    from stream_guard.ports import Clock, Partition, Source
    from stream_guard.settings import DeliverySettings
    from stream_guard.telemetry.metrics import Metrics

_log = structlog.get_logger(__name__)
POLL_TIMEOUT_MS: Final = 500
# While full, how often an empty poll tells the group that we are alive; far below max_poll_interval_ms.
_KEEP_ALIVE_S: Final = 5.0


class Consumer:
    """Drives one pipeline from one source; it is the source's rebalance listener.

    Attributes:
        turns: how often the poll loop has turned, for liveness.
        commits: how many have succeeded.
    """

    def __init__(
        self,
        source: Source,
        pipeline: Pipeline,
        delivery: DeliverySettings,
        *,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._source = source
        self._pipeline = pipeline
        self._delivery = delivery
        self._clock = clock
        self._metrics = metrics
        self._offsets: dict[Partition, PartitionOffsets] = {}
        self._epoch = 0
        self._stopping = asyncio.Event()
        self._held = asyncio.Event()
        self._committing = asyncio.Lock()
        self.turns = 0
        self.commits = 0

    @property
    def assigned(self) -> Sequence[Partition]:
        """The partitions that are ours now."""
        return tuple(self._offsets)

    def lag_records(self) -> int | None:
        """Return how many records of our partitions are still to be read; None where no end is known."""
        ends = self._source.ends()
        behind = [
            end - offsets.next_offset
            for partition, offsets in self._offsets.items()
            if (end := ends.get(partition)) is not None and offsets.next_offset is not None
        ]
        return max(0, sum(behind)) if behind else None

    def hold(self) -> None:
        """Keep the membership, and take no records, until :meth:`release`: the engine is not ready."""
        self._held.clear()

    def release(self) -> None:
        """Take records."""
        self._held.set()

    def heads(self) -> list[Head]:
        """Return the oldest unfinished record of each partition that has one."""
        now_ns = self._clock.wall_ns()
        heads = []
        for partition, offsets in self._offsets.items():
            oldest = self._pipeline.oldest(partition)
            if oldest is not None:
                offset, read_ns = oldest
                age_s = max(0.0, (now_ns - read_ns) / 1e9)
                heads.append(Head(partition, offset, age_s, offsets.span - offsets.unfinished))
        return heads

    def progress(self, heads: Sequence[Head], *, engine_ready: bool) -> Progress:
        """Return what has moved so far."""
        return Progress(
            turns=self.turns,
            finished=self._pipeline.finished,
            committed=self.commits,
            in_flight=self._pipeline.flow.records,
            uncommitted=any(o.committable() is not None for o in self._offsets.values()),
            oldest_s=max((head.age_s for head in heads), default=0.0),
            engine_ready=engine_ready,
        )

    def stop(self) -> None:
        """Ask :meth:`run` to return soon."""
        self._stopping.set()
        self._pipeline.progress.set()

    async def run(self) -> None:
        """Poll until :meth:`stop`; raises BrokerError where reading cannot go on."""
        committer = asyncio.create_task(self._commit_regularly(), name="committer")
        try:
            while not self._stopping.is_set():
                await self._turn()
        finally:
            committer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await committer

    async def _turn(self) -> None:
        self.turns += 1
        pipeline = self._pipeline
        pipeline.dispatch()
        self._metrics.in_flight.set(pipeline.flow.records)
        room = pipeline.flow.room() if self._held.is_set() else 0
        pollable = pipeline.flow.pollable(self._offsets.values()) if room else []
        if not pollable:
            await self._wait_for_room()
            # Nothing is asked for, so nothing comes: it only counts as a poll.
            await self._source.poll((), records_max=1, timeout_ms=0)
            return
        records = await self._source.poll(pollable, records_max=room, timeout_ms=self._timeout_ms())
        for partition, batch in records.items():
            offsets = self._offsets.get(partition)
            assert offsets is not None, "the source hands out records of assigned partitions only"
            pipeline.accept(offsets, batch)
        # A poll that finds prefetched records does not suspend, and publishing has to get its turn.
        await asyncio.sleep(0)

    def _timeout_ms(self) -> int:
        due_s = self._pipeline.next_due_s()
        if due_s is None:
            return POLL_TIMEOUT_MS
        return max(0, min(POLL_TIMEOUT_MS, round((due_s - self._clock.monotonic_s()) * 1_000)))

    async def _wait_for_room(self) -> None:
        """Wait until something is finished, something is due, or it is time for a sign of life."""
        progress = self._pipeline.progress
        progress.clear()
        due_s = self._pipeline.next_due_s()
        timeout_s = (
            _KEEP_ALIVE_S if self._held.is_set() and self._offsets else POLL_TIMEOUT_MS / 1_000
        )
        if due_s is not None:
            timeout_s = max(0.0, min(timeout_s, due_s - self._clock.monotonic_s()))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await progress.wait()

    # Rebalance

    async def on_assigned(self, partitions: Sequence[Partition]) -> None:
        """Begin an epoch for each partition; nothing of them was read before in this epoch."""
        self._epoch += 1
        self._offsets = {
            partition: PartitionOffsets(partition, self._epoch) for partition in partitions
        }
        self._metrics.rebalances.inc()
        self._metrics.partitions.set(len(partitions))
        _log.info(
            "assigned",
            epoch=self._epoch,
            partitions=[f"{p.topic}/{p.partition}" for p in partitions],
        )
        self._pipeline.progress.set()

    async def on_revoked(self, partitions: Sequence[Partition]) -> None:
        """Finish what is in flight until the drain's deadline, commit, and give up the rest."""
        if self._offsets:
            abandoned = await self.drain()
            _log.info("revoked", epoch=self._epoch, partitions=len(partitions), abandoned=abandoned)
        self._metrics.partitions.set(0)

    async def drain(self) -> int:
        """Finish what is in flight until ``delivery.drain_timeout_s``, commit; return the records given up."""
        draining, self._offsets = self._offsets, {}
        pipeline = self._pipeline
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._delivery.drain_timeout_s):
                while pipeline.unfinished(draining):
                    pipeline.progress.clear()
                    pipeline.dispatch(flush=True)
                    await pipeline.progress.wait()
        await self._commit(draining.values())
        for offsets in draining.values():
            offsets.revoked = True
        return pipeline.abandon(draining)

    # Commit

    async def _commit_regularly(self) -> None:
        while True:
            await asyncio.sleep(self._delivery.commit_interval_ms / 1_000)
            await self._commit(self._offsets.values())

    async def _commit(self, partitions: Iterable[PartitionOffsets]) -> None:
        async with self._committing:  # one at a time, so that positions never go back
            positions: dict[Partition, int] = {}
            trackers = list(partitions)
            for offsets in trackers:
                position = offsets.committable()
                if position is not None:
                    positions[offsets.partition] = position
            if not positions:
                return
            try:
                await self._source.commit(positions)
            except BrokerError as error:
                # Nothing is lost: the position stays, and is committed next time or read again.
                self._metrics.commits.labels("failed").inc()
                _log.warning("commit_failed", error=str(error))
                return
            self._metrics.commits.labels("ok").inc()
            self.commits += 1
            for offsets in trackers:
                if offsets.partition in positions:
                    offsets.committed = positions[offsets.partition]
