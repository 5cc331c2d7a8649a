"""What is in flight decides what is polled."""

from __future__ import annotations

import pytest

from stream_guard.core.kafka_types import Partition
from stream_guard.settings import BatchingSettings
from stream_guard.stream.admission import Admission
from stream_guard.stream.offsets import PartitionOffsets

LIMITS = BatchingSettings(
    poll_records_max=10,
    in_flight_records_max=15,
    in_flight_bytes_max=1 << 16,
    in_flight_tokens_max=100,
    partition_in_flight_max=2,
    partition_span_max=4,
)


def test_room_is_a_poll_and_then_what_is_left() -> None:
    flow = Admission(LIMITS)
    assert flow.room() == 10
    for _ in range(8):
        flow.enter(1, 1)
    assert flow.room() == 7
    for _ in range(7):
        flow.enter(1, 1)
    assert flow.room() == 0
    flow.enter(1, 1)  # one over the limit makes no negative room
    assert flow.room() == 0
    for _ in range(16):
        flow.leave(1, 1)
    assert (flow.room(), flow.records, flow.bytes, flow.tokens) == (10, 0, 0, 0)


@pytest.mark.parametrize(
    ("size_bytes", "tokens", "room"), [((1 << 16) - 1, 99, 10), (1 << 16, 0, 0), (0, 100, 0)]
)
def test_bytes_and_tokens_close_the_door(size_bytes: int, tokens: int, room: int) -> None:
    flow = Admission(LIMITS)
    flow.enter(size_bytes, tokens)
    assert flow.room() == room
    flow.leave(size_bytes, tokens)
    assert flow.room() == 10


def test_a_record_cannot_leave_twice() -> None:
    flow = Admission(LIMITS)
    with pytest.raises(AssertionError, match="twice"):
        flow.leave(1, 1)


def pollable(*trackers: PartitionOffsets) -> list[int]:
    return [partition.partition for partition in Admission(LIMITS).pollable(trackers)]


def tracker(number: int, *offsets: int) -> PartitionOffsets:
    made = PartitionOffsets(Partition("posts", number), 1)
    made.receive(offsets)
    return made


def test_a_partition_with_enough_in_flight_is_left_alone() -> None:
    full = tracker(0, 1, 2)
    assert pollable(full, tracker(1, 1)) == [1]
    full.finish(1)
    assert pollable(full) == [0]


def test_a_slow_head_holds_back_a_bounded_number_of_finished_records() -> None:
    held = tracker(0, 1, 2, 3, 4)
    for offset in (2, 3, 4):
        held.finish(offset)
    assert held.unfinished == 1
    assert pollable(held) == []
    held.finish(1)
    assert pollable(held) == [0]


def test_a_partition_that_is_lost_is_not_polled() -> None:
    lost = tracker(0)
    assert pollable(lost) == [0]
    lost.revoked = True
    assert pollable(lost) == []
