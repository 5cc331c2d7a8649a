"""The poll loop: poll, accept, dispatch; rebalance, rewind and drain.

An assigned partition either has an *epoch* and is polled, or it is being *rewound* and is not polled. A task finds the
committed position of a rewound partition, while polls and heartbeats go on. The poll loop then seeks there between two
polls, so that no record of the old position can come after it, and begins the next epoch.

It never commits for a partition that was lost. A drain always has a deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

import structlog

from stream_guard.stream.offsets import PartitionOffsets
from stream_guard.stream.progress import Head, Progress, Standing

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from stream_guard.core.clock import Clock
    from stream_guard.core.kafka_types import Partition, Record
    from stream_guard.settings import DeliverySettings
    from stream_guard.stream.delivery import Delivery
    from stream_guard.stream.pipeline import Pipeline
    from stream_guard.stream.ports import Source
    from stream_guard.telemetry.metrics import Metrics

_log = structlog.get_logger(__name__)
POLL_TIMEOUT_MS: Final = 500
_NARROW_POLL_MS: Final = 20
"""How long a poll lasts at most that leaves out a partition: the room that it gets meanwhile does not end the poll."""
# While full, how often an empty poll tells the group that we are alive; far below max_poll_interval_ms.
_KEEP_ALIVE_S: Final = 5.0
_LOOK_S: Final = 0.1
"""How often a drain looks for posts that a quota holds back."""


class PollLoop:
    """Drives one pipeline from one source; it is the source's rebalance listener.

    Args:
        source, pipeline: what it stands between.
        delivery: the delivery mode.
        settings: intervals and deadlines.
        clock, metrics: the parts.

    Attributes:
        turns: how often the loop has turned, for liveness.
    """

    def __init__(
        self,
        source: Source,
        pipeline: Pipeline,
        delivery: Delivery,
        settings: DeliverySettings,
        *,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._source = source
        self._pipeline = pipeline
        self._delivery = delivery
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._offsets: dict[Partition, PartitionOffsets] = {}
        self._epoch = 0
        self._stopping = asyncio.Event()
        self._held = asyncio.Event()
        delivery.listen(self._end_epoch)
        self._rewinding: dict[Partition, asyncio.Task[None]] = {}
        # Partitions whose position was found, and why they were rewound: they wait for the poll loop.
        self._rewound: dict[Partition, tuple[int, str]] = {}
        self._failure: BaseException | None = None
        self._draining: asyncio.Task[int] | None = None
        # By partition, the highest offset that this process has received in any epoch: at or below it, it is a repeat.
        self._received: dict[Partition, int] = {}
        self._causes: dict[Partition, str] = {}
        # How long the last turn took, its waiting left out, in s: about when the next one can hand posts over.
        self._turn_s = 0.0
        self.turns = 0

    @property
    def assigned(self) -> Sequence[Partition]:
        """The partitions that are ours now."""
        return (*self._offsets, *self._rewinding, *self._rewound)

    def lag_records(self) -> int | None:
        """Return how many records of our partitions are still to be read; None where no end is known.

        A backlog that waits for all others is none that presses: topics of the class ``backfill`` do not count.
        """
        ends = self._source.ends()
        behind = [
            end - offsets.next_offset
            for offsets in self._lagging()
            if (end := ends.get(offsets.partition)) is not None and offsets.next_offset is not None
        ]
        return max(0, sum(behind)) if behind else None

    def topics_without_route(self) -> list[str]:
        """Return the assigned topics that no policy judges, which ``kafka.topic_pattern`` may catch."""
        topics = {partition.topic for partition in self._offsets}
        return sorted(topic for topic in topics if not self._pipeline.routes.has_route(topic))

    def _judged(self) -> list[PartitionOffsets]:
        """Return the partitions whose topic has a route; the others are left alone, and no position of theirs moves."""
        has_route = self._pipeline.routes.has_route
        return [one for one in self._offsets.values() if has_route(one.partition.topic)]

    def _lagging(self) -> list[PartitionOffsets]:
        """Return the judged partitions whose unread records are a lag."""
        has_lag, waits = self._pipeline.routes.has_lag, self._pipeline.lanes.only_backfill
        topics = ((one, one.partition.topic) for one in self._judged())
        return [one for one, topic in topics if has_lag(topic) and not waits(topic)]

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
            oldest = self._pipeline.live.oldest(partition)
            if oldest is not None:
                offset, read_ns = oldest
                age_s = max(0.0, (now_ns - read_ns) / 1e9)
                held_back = offsets.span - offsets.unfinished
                trace_id = self._pipeline.live.oldest_trace_id(partition)
                patient = self._pipeline.live.is_patient(partition)
                heads.append(Head(partition, offset, age_s, held_back, trace_id, patient))
        return heads

    def standings(self) -> list[Standing]:
        """Return how far behind each partition is whose records are being read."""
        ends = self._source.ends()
        standings = []
        for offsets in self._lagging():
            partition = offsets.partition
            position, end = offsets.position(), ends.get(partition)
            known = position is not None and end is not None
            behind = max(0, end - position) if known else None  # type: ignore[operator]
            written_ns = self._pipeline.live.oldest_written_ns(partition)
            standings.append(Standing(partition, behind, written_ns))
        return standings

    def show_lanes(self) -> None:
        """Show the state of each lane in the metrics."""
        self._pipeline.lanes.show(self._pipeline.clock.wall_ns())

    def progress(self, heads: Sequence[Head], *, engine_ready: bool) -> Progress:
        """Return what has moved so far."""
        return Progress(
            turns=self.turns,
            finished=self._pipeline.finished,
            committed=self._delivery.commits,
            in_flight=self._pipeline.admission.records,
            uncommitted=any(o.committable() is not None for o in self._offsets.values()),
            oldest_s=max((head.age_s for head in heads if not head.patient), default=0.0),
            engine_ready=engine_ready,
        )

    def stop(self) -> None:
        """Ask :meth:`run` to return soon."""
        self._stopping.set()
        self._pipeline.progress.set()

    async def run(self) -> None:
        """Poll until :meth:`stop`; raises BrokerError where reading cannot go on."""
        committer = asyncio.create_task(
            self._delivery.commit_regularly(lambda: [*self._offsets.values()]), name="committer"
        )
        try:
            while not self._stopping.is_set():
                await self._turn()
        finally:
            committer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await committer

    async def _turn(self) -> None:
        self.turns += 1
        if self._failure is not None:
            raise self._failure
        pipeline = self._pipeline
        self._seek_rewound()
        # What would be too old by the next turn goes now: a turn of many records takes as long as a post may wait.
        pipeline.dispatch(ahead_s=self._turn_s)
        self._metrics.in_flight.set(pipeline.admission.records)
        room = pipeline.admission.room() if self._held.is_set() else 0
        judged = self._judged()
        pollable = pipeline.admission.pollable(judged) if room else []
        if pipeline.lanes.named:
            crowded = pipeline.admission.is_crowded()
            pollable = pipeline.lanes.pollable(pollable, crowded=crowded)
        if not pollable:
            await self._wait_for_room()
            # Nothing is asked for, so nothing comes: it only counts as a poll.
            await self._source.poll((), records_max=1, timeout_ms=0)
            return
        records = await self._source.poll(
            pollable,
            records_max=room,
            timeout_ms=self._timeout_ms(narrow=len(pollable) < len(judged)),
            bytes_max=pipeline.admission.room_bytes(),
        )
        polled_s = self._clock.monotonic_s()
        for partition, batch in records.items():
            self._accept(partition, batch)
        self._pass_gaps(pollable)
        # A poll that finds prefetched records does not suspend, and publishing has to get its turn.
        await asyncio.sleep(0)
        self._turn_s = self._clock.monotonic_s() - polled_s

    def _accept(self, partition: Partition, batch: Sequence[Record]) -> None:
        offsets = self._offsets.get(partition)
        if offsets is None or not batch:
            return  # its epoch ended during the poll: it is read again
        first, expected = batch[0].offset, offsets.next_offset
        if offsets.last is None:
            offsets.begin_at(first)  # a log that begins again may end before the committed position
        elif expected is not None and first < expected:
            # The log begins again, or was cut: records of the old log move no position of the new one.
            _log.warning(
                "log_went_back",
                partition=f"{partition.topic}/{partition.partition}",
                expected=expected,
                now=first,
            )
            self._end_epoch(offsets, "reset")
            return
        seen = self._received.get(partition)
        if seen is not None and first <= seen:
            count = sum(record.offset <= seen for record in batch)
            self._metrics.repeats.labels(self._causes[partition]).inc(count)
        self._pipeline.accept(offsets, batch)

    def _pass_gaps(self, polled: Sequence[Partition]) -> None:
        """Move past offsets without records: transaction markers, aborted records, compacted ones."""
        if self._pipeline.dead_letters.trip is not None:
            return  # records polled since were not accepted
        positions = self._source.positions()
        for partition in polled:
            offsets, position = self._offsets.get(partition), positions.get(partition)
            if offsets is not None and position is not None:
                offsets.pass_to(position)

    def _timeout_ms(self, *, narrow: bool) -> int:
        longest_ms = _NARROW_POLL_MS if narrow else POLL_TIMEOUT_MS
        due_s = self._pipeline.next_due_s()
        if due_s is None:
            return longest_ms
        return max(0, min(longest_ms, round((due_s - self._clock.monotonic_s()) * 1_000)))

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
        """Find the position of each partition; its epoch begins then. This returns at once, so heartbeats go on."""
        self._metrics.rebalances.inc()
        self._metrics.partitions.set(len(partitions))
        _log.info(
            "assigned",
            epoch=self._epoch + 1,
            partitions=[f"{p.topic}/{p.partition}" for p in partitions],
        )
        self._rewind(partitions, "rebalance")

    async def on_revoked(self, partitions: Sequence[Partition]) -> None:
        """Finish what is in flight until the drain's deadline, commit, give up the rest; or await a stop's drain."""
        if self.assigned or (self._draining is not None and not self._draining.done()):
            abandoned = await self.drain()
            _log.info("revoked", epoch=self._epoch, partitions=len(partitions), abandoned=abandoned)
        self._metrics.partitions.set(0)

    # Epochs

    def _begin_epoch(self, partition: Partition, position: int, cause: str) -> None:
        self._epoch += 1
        offsets = self._offsets[partition] = PartitionOffsets(partition, self._epoch)
        offsets.pass_to(position)
        self._causes[partition] = cause
        self._delivery.begin(offsets)

    def _end_epoch(self, offsets: PartitionOffsets, cause: str) -> None:
        """Give up what is unfinished of an epoch, and have its partition read again from where it is committed."""
        partition = offsets.partition
        offsets.revoked = True
        self._note_received(offsets)
        abandoned = self._pipeline.abandon([partition])
        # In a drain it is not read again, but by its next owner; and then nothing is left to wait for.
        if self._offsets.get(partition) is offsets:
            del self._offsets[partition]
            _log.warning(
                "rewinding",
                partition=f"{partition.topic}/{partition.partition}",
                cause=cause,
                abandoned=abandoned,
            )
            self._rewind([partition], cause)

    def _note_received(self, offsets: PartitionOffsets) -> None:
        if offsets.last is not None:
            seen = self._received.get(offsets.partition, -1)
            self._received[offsets.partition] = max(seen, offsets.last)

    def _rewind(self, partitions: Collection[Partition], cause: str) -> None:
        task = asyncio.create_task(self._find_positions(partitions, cause), name=f"rewind-{cause}")
        self._rewinding.update(dict.fromkeys(partitions, task))

    async def _find_positions(self, partitions: Collection[Partition], cause: str) -> None:
        def found(partition: Partition, position: int) -> None:
            if cause == "reset":
                self._received.pop(partition, None)  # other records have these offsets now
            self._rewinding.pop(partition, None)
            self._rewound[partition] = (position, cause)
            self._pipeline.progress.set()

        try:
            await self._delivery.find_positions(partitions, cause, found)
        except Exception as error:  # noqa: BLE001 - raised by the poll loop
            self._failure = error
            self._pipeline.progress.set()

    def _seek_rewound(self) -> None:
        """Between two polls: read on from the positions that were found."""
        for partition, (position, cause) in self._rewound.items():
            self._source.seek(partition, position)
            known = cause in ("rebalance", "reset")
            self._begin_epoch(partition, position, cause if known else "rewind")
        self._rewound.clear()

    async def _stop_rewinding(self) -> None:
        tasks = {*self._rewinding.values()}
        self._rewinding.clear()
        self._rewound.clear()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def drain(self) -> int:
        """Finish what is in flight until ``delivery.drain_timeout_s``, commit; return the records given up.

        A stop during a rebalance asks a second time, or the other way round. Both wait for one drain, by one deadline.
        """
        if self._draining is None or self._draining.done():
            self._draining = asyncio.create_task(self._drain(), name="drain")
        return await asyncio.shield(self._draining)

    async def _drain(self) -> int:
        owned = self.assigned
        draining, self._offsets = self._offsets, {}
        await self._stop_rewinding()
        pipeline = self._pipeline
        self._delivery.hurry()
        abandoned = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.drain_timeout_s):
                while pipeline.live.unfinished(draining):
                    pipeline.progress.clear()
                    pipeline.dispatch(flush=True)
                    # What a quota holds back would hold the drain to its limit. A tier may pass a post on to its
                    # quota without any progress of ours, so we look again.
                    delayed = pipeline.live.delayed(draining, behind=self._delivery.in_order)
                    abandoned += pipeline.give_up(delayed)
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_LOOK_S):
                            await pipeline.progress.wait()
        await self._delivery.commit(draining.values())
        for offsets in draining.values():
            offsets.revoked = True
            self._note_received(offsets)
        abandoned += pipeline.abandon(draining)
        await self._delivery.release(owned)
        return abandoned
