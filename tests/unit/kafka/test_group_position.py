"""How far another group is behind is a lag, and a time only while it commits nothing."""

from __future__ import annotations

from stream_guard.kafka.group_position import Reading


def test_what_is_not_committed_is_a_lag() -> None:
    reading = Reading(0.0)
    assert (reading.lag_records, reading.wait_s(5.0)) == (None, 0.0)
    # A partition that was never read counts from where its log begins.
    reading.update({0: 7}, {0: 0, 1: 3}, {0: 10, 1: 5}, 10.0)
    assert reading.lag_records == 3 + 2
    assert reading.positions == {0: 7}


def test_a_group_that_commits_does_not_wait_and_one_that_stands_still_does() -> None:
    reading = Reading(0.0)
    begins, ends = {0: 0}, {0: 10}
    reading.update({0: 1}, begins, ends, 10.0)
    reading.update({0: 2}, begins, ends, 20.0)
    assert reading.wait_s(21.0) == 1.0
    reading.update({0: 2}, begins, ends, 30.0)
    assert reading.wait_s(50.0) == 30.0
    reading.update({0: 10}, begins, ends, 60.0)
    assert reading.wait_s(500.0) == 0.0


def test_a_group_that_has_never_read_waits_from_the_first_record_on() -> None:
    reading = Reading(0.0)
    reading.update({}, {0: 0}, {0: 0}, 10.0)
    reading.update({}, {0: 0}, {0: 4}, 20.0)
    assert reading.lag_records == 4
    assert reading.wait_s(40.0) == 30.0
