"""A source that hands out records of one topic only when they are old enough.

A record that comes too early is sought back to, and its partition is not polled until then. So nothing is kept in
memory, and no position passes a record that waits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from stream_guard.stream.ports import NO_BOUND
from stream_guard.stream.wrapping_source import WrappingSource

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from stream_guard.core.clock import Clock
    from stream_guard.core.kafka_types import Partition, Record
    from stream_guard.stream.ports import Source

__all__ = ["LateSource"]

_PAUSE_S_MIN: Final = 1.0
"""Shortest pause of a partition: what follows a record is fetched again after it."""


class LateSource(WrappingSource):
    """A source before another one.

    Args:
        inner: the source.
        topic: whose records wait.
        delay_s: for how long after their timestamps, in s. A record without a timestamp does not wait.
        clock: tells the time.
        asked: returns whether anybody has asked what became of the records. Until then none is handed out: after a
            pause of this deployment, nearly all of them were judged long ago.
    """

    def __init__(
        self,
        inner: Source,
        topic: str,
        delay_s: float,
        clock: Clock,
        asked: Callable[[], bool],
    ) -> None:
        super().__init__(inner)
        self._topic = topic
        self._delay_ms = delay_s * 1_000
        self._clock = clock
        self._asked = asked
        self._paused: dict[Partition, float] = {}  # until when, on the monotonic clock

    async def poll(
        self,
        partitions: Sequence[Partition],
        *,
        records_max: int,
        timeout_ms: int,
        bytes_max: int = NO_BOUND,
    ) -> Mapping[Partition, Sequence[Record]]:
        """Return records that are old enough, and those of other topics."""
        now_s, paused = self._clock.monotonic_s(), self._paused
        for partition in [each for each, until_s in paused.items() if until_s <= now_s]:
            del paused[partition]
        if paused:
            next_ms = round((min(paused.values()) - now_s) * 1_000)
            timeout_ms = min(timeout_ms, max(1, next_ms))
        held = None if self._asked() else self._topic
        polled = await self._inner.poll(
            [each for each in partitions if each not in paused and each.topic != held],
            records_max=records_max,
            timeout_ms=timeout_ms,
            bytes_max=bytes_max,
        )
        return {
            partition: ripe
            for partition, records in polled.items()
            if (ripe := self._ripe(partition, records))
        }

    def _ripe(self, partition: Partition, records: Sequence[Record]) -> Sequence[Record]:
        """Return the records before the first that is too young; seek back to that one."""
        if partition.topic != self._topic:
            return records
        oldest_ms = self._clock.wall_ns() / 1e6 - self._delay_ms
        for index, record in enumerate(records):
            if record.timestamp > oldest_ms:
                self._inner.seek(partition, record.offset)
                wait_s = max(_PAUSE_S_MIN, (record.timestamp - oldest_ms) / 1_000)
                self._paused[partition] = self._clock.monotonic_s() + wait_s
                return records[:index]
        return records

    def seek(self, partition: Partition, position: int) -> None:
        """Read on from here."""
        self._paused.pop(partition, None)
        super().seek(partition, position)
