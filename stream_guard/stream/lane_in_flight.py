"""What a lane has in flight, as numbers. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stream_guard.core.kafka_types import Partition
    from stream_guard.policies.lanes import Lane, LaneLimits
    from stream_guard.stream.in_flight import InFlightRecord
    from stream_guard.stream.offsets import PartitionOffsets

__all__ = ["LaneInFlight", "LaneOfEpoch", "SeveralLanes"]


class LaneInFlight:
    """What a lane has in flight.

    Attributes:
        lane: as the last snapshot of the routes that names it describes it.
        records, bytes, tokens: in all.
        epochs: of the partitions that have records of it in flight.
        finished: records that were finished and are not in the metrics yet, by when they were written, Unix time in ms.
    """

    __slots__ = ("bytes", "epochs", "finished", "lane", "records", "tokens")

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.records = self.bytes = self.tokens = 0
        self.epochs: dict[PartitionOffsets, LaneOfEpoch] = {}
        self.finished: dict[int, int] = {}

    def of_epoch(self, offsets: PartitionOffsets) -> LaneOfEpoch:
        """Return the counts of a partition's epoch, for records that enter now."""
        known = self.epochs.get(offsets)
        if known is None:
            known = self.epochs[offsets] = LaneOfEpoch(self, offsets)
        return known

    def has_of(self, partition: Partition) -> bool:
        """Return whether a record of a partition is in flight."""
        return any(
            one.records and offsets.partition == partition for offsets, one in self.epochs.items()
        )

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


class LaneOfEpoch:
    """What a lane has in flight of one partition's epoch: the count that nearly every record is in.

    Attributes:
        held: the lane.
        records: of this epoch.
    """

    __slots__ = ("_offsets", "held", "records")

    def __init__(self, held: LaneInFlight, offsets: PartitionOffsets) -> None:
        self.held = held
        self.records = 0
        self._offsets = offsets

    def enter(self, size_bytes: int, tokens: int) -> None:
        """Count a record in, with the estimated tokens of its requests in this lane."""
        held = self.held
        held.records += 1
        held.bytes += size_bytes
        held.tokens += tokens
        self.records += 1

    def leave(self, in_flight: InFlightRecord, tokens: int, *, finished: bool) -> None:
        """Count a record out; see :class:`stream_guard.stream.in_flight.RecordLanes`."""
        held = self.held
        held.records -= 1
        held.bytes -= in_flight.size_bytes
        held.tokens -= tokens
        self.records -= 1
        if not self.records:
            del held.epochs[self._offsets]
        if finished:
            written_ms = in_flight.record.timestamp
            if written_ms <= 0 or written_ms * 1_000_000 > in_flight.consumed_ns:
                written_ms = in_flight.consumed_ns // 1_000_000
            held.finished[written_ms] = held.finished.get(written_ms, 0) + 1


class SeveralLanes:
    """The lanes of a record whose policies are in several.

    Args:
        entered: the lane of each request, with its estimated tokens.
    """

    def __init__(self, entered: Iterable[tuple[LaneOfEpoch, int]]) -> None:
        self._tokens: dict[LaneOfEpoch, int] = {}
        for one, tokens in entered:
            self._tokens[one] = self._tokens.get(one, 0) + tokens

    def enter(self, size_bytes: int) -> None:
        """Count a record into each."""
        for one, tokens in self._tokens.items():
            one.enter(size_bytes, tokens)

    def leave(self, in_flight: InFlightRecord, tokens: int, *, finished: bool) -> None:  # noqa: ARG002 - each has its part
        """Count a record out of each."""
        for one, own in self._tokens.items():
            one.leave(in_flight, own, finished=finished)
