"""Which offset may be committed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_guard.core.kafka_types import Partition
from stream_guard.stream.offsets import PartitionOffsets


def make(*offsets: int) -> PartitionOffsets:
    tracker = PartitionOffsets(Partition("posts", 0), 1)
    tracker.receive(offsets)
    return tracker


def test_nothing_received_is_nothing_to_commit() -> None:
    tracker = make()
    assert (tracker.position(), tracker.committable(), tracker.unfinished) == (None, None, 0)


def test_the_lowest_unfinished_record_holds_the_position() -> None:
    tracker = make(5, 6, 7)
    assert tracker.committable() is None  # where reading began is no news
    tracker.finish(6)
    assert (tracker.position(), tracker.unfinished, tracker.span) == (5, 2, 3)
    tracker.finish(5)
    assert (tracker.committable(), tracker.unfinished, tracker.span) == (7, 1, 1)
    tracker.finish(7)
    assert (tracker.committable(), tracker.unfinished, tracker.span) == (8, 0, 0)


def test_a_gap_does_not_hold_the_position() -> None:
    tracker = make(5, 900)
    tracker.finish(5)
    assert tracker.position() == 900
    tracker.finish(900)
    assert tracker.position() == 901


def test_what_was_committed_is_not_committed_again() -> None:
    tracker = make(5)
    tracker.finish(5)
    tracker.committed = tracker.committable()
    assert tracker.committable() is None
    tracker.receive([6])
    assert tracker.committable() is None
    tracker.finish(6)
    assert tracker.committable() == 7


def test_a_partition_that_is_lost_commits_nothing() -> None:
    tracker = make(5)
    tracker.finish(5)
    tracker.revoked = True
    assert tracker.committable() is None


@pytest.mark.parametrize("offsets", [(5, 5), (5, 4)])
def test_offsets_that_do_not_ascend_are_refused(offsets: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="received after 5"):
        make(*offsets)
    tracker = make(5)
    tracker.finish(5)
    with pytest.raises(ValueError, match="received after 5"):
        tracker.receive(offsets[1:])


@given(st.data())
def test_any_order_gives_what_the_definition_says(data: st.DataObject) -> None:
    offsets = sorted(data.draw(st.sets(st.integers(0, 60), min_size=1)))
    tracker = make(*offsets)
    left = set(offsets)
    for offset in data.draw(st.permutations(offsets)):
        tracker.finish(offset)
        left.remove(offset)
        assert tracker.position() == min(left, default=offsets[-1] + 1)
        assert tracker.unfinished == len(left)


def test_what_is_settled_is_the_run_of_ready_records_at_the_head() -> None:
    tracker = make(3, 4, 9, 10)
    assert tracker.settled({4, 9}, 10) == []
    assert tracker.settled({3, 4, 10}, 10) == [3, 4]
    assert tracker.settled({3, 4, 9, 10}, 3) == [3, 4, 9]
    assert [tracker.position_after(count) for count in range(5)] == [3, 4, 9, 10, 11]
    for offset in (4, 3):
        tracker.finish(offset)
    assert tracker.settled({9}, 10) == [9]
    assert tracker.position_after(1) == 10


def test_a_log_that_begins_below_the_committed_position_is_read_from_its_first_record() -> None:
    offsets = PartitionOffsets(Partition("posts", 0), 1)
    offsets.pass_to(
        120
    )  # a poll without records: the group's position, past the end of the new log
    offsets.begin_at(0)
    offsets.receive([0, 1])
    for offset in (0, 1):
        offsets.finish(offset)
    assert offsets.committable() == 2


def test_a_gap_before_the_first_record_stays_passed() -> None:
    offsets = PartitionOffsets(Partition("posts", 0), 1)
    offsets.pass_to(120)
    offsets.begin_at(125)
    assert offsets.committable() is None
    assert offsets.next_offset == 120
