"""What a lane has in flight, as numbers. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stream_guard.core.kafka_types import Partition
    from stream_guard.policies.lanes import Lane, LaneLimits
    from stream_guard.stream.in_flight import InFlightRecord
    from stream_guard.stream.offsets import PartitionOffsets

__all__ = ["LaneInFlight", "SeveralLanes"]


class LaneInFlight:
    """What a lane has in flight.

    Attributes:
        lane: as the last snapshot of the routes that names it describes it.
        records, bytes, tokens: in all.
        by_epoch: records, by the offsets of their partition's epoch: a key that costs no hash of a topic's name.
        finished: records that were finished and are not in the metrics yet, by when they were written, Unix time in ms.
    """

    __slots__ = ("by_epoch", "bytes", "finished", "lane", "records", "tokens")

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.records = self.bytes = self.tokens = 0
        self.by_epoch: dict[PartitionOffsets, int] = {}
        self.finished: dict[int, int] = {}

    def enter(self, in_flight: InFlightRecord, tokens: int) -> None:
        """Count a record in, with the estimated tokens of its requests in this lane."""
        self.records += 1
        self.bytes += in_flight.size_bytes
        self.tokens += tokens
        epoch = in_flight.offsets
        self.by_epoch[epoch] = self.by_epoch.get(epoch, 0) + 1

    def leave(self, in_flight: InFlightRecord, tokens: int, *, finished: bool) -> None:
        """Count a record out; see :class:`stream_guard.stream.in_flight.RecordLanes`."""
        self.records -= 1
        self.bytes -= in_flight.size_bytes
        self.tokens -= tokens
        epoch = in_flight.offsets
        left = self.by_epoch[epoch] - 1
        if left:
            self.by_epoch[epoch] = left
        else:
            del self.by_epoch[epoch]
        if finished:
            written_ms = in_flight.record.timestamp
            if written_ms <= 0 or written_ms * 1_000_000 > in_flight.consumed_ns:
                written_ms = in_flight.consumed_ns // 1_000_000
            self.finished[written_ms] = self.finished.get(written_ms, 0) + 1

    def has_of(self, partition: Partition) -> bool:
        """Return whether a record of a partition is in flight."""
        return any(epoch.partition == partition for epoch in self.by_epoch)

    def reaches(self, limits: LaneLimits, times: int = 1) -> bool:
        """Return whether a limit, so many times, is reached."""
        return any(
            limit is not None and held >= times * limit
            for held, limit in (
                (self.records, limits.records),
                (self.bytes, limits.bytes),
                (self.tokens, limits.tokens),
            )
        )


class SeveralLanes:
    """The lanes of a record whose policies are in several.

    Args:
        entered: the lane of each request, with its estimated tokens.
    """

    def __init__(self, entered: Iterable[tuple[LaneInFlight, int]]) -> None:
        self._tokens: dict[LaneInFlight, int] = {}
        for held, tokens in entered:
            self._tokens[held] = self._tokens.get(held, 0) + tokens

    def enter(self, in_flight: InFlightRecord) -> None:
        """Count a record into each."""
        for held, tokens in self._tokens.items():
            held.enter(in_flight, tokens)

    def leave(self, in_flight: InFlightRecord, tokens: int, *, finished: bool) -> None:  # noqa: ARG002 - each has its part
        """Count a record out of each."""
        for held, own in self._tokens.items():
            held.leave(in_flight, own, finished=finished)
