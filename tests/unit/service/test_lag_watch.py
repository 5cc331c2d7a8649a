"""The age of a partition's oldest unjudged record, from what is in flight and what is still to be read."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from stream_guard.core.kafka_types import Partition
from stream_guard.service.health.lag import LagWatch
from stream_guard.stream.progress import Standing
from stream_guard.telemetry.metrics import STAGES, Metrics

ONE, TWO = Partition("posts", 0), Partition("posts", 1)
S = 1_000_000_000


def test_the_age_is_that_of_the_oldest_in_flight_by_its_own_timestamp() -> None:
    watch = LagWatch()
    standings = [Standing(ONE, 9, 3 * S), Standing(TWO, 0, None)]
    assert watch.ages_s(standings, 10 * S) == {ONE: 7, TWO: 0}


def test_what_nobody_has_read_ages_from_when_it_was_seen_and_never_falls() -> None:
    watch = LagWatch()
    assert watch.ages_s([Standing(ONE, 5, None)], 10 * S) == {ONE: 0}
    assert watch.ages_s([Standing(ONE, 6, None)], 14 * S) == {ONE: 4}
    # Read at last, and given up again by a rewind: it is as old as it was.
    assert watch.ages_s([Standing(ONE, 6, 2 * S)], 15 * S) == {ONE: 13}
    assert watch.ages_s([Standing(ONE, 6, None)], 16 * S) == {ONE: 14}
    assert watch.ages_s([Standing(ONE, 0, None)], 17 * S) == {ONE: 0}
    assert watch.ages_s([Standing(ONE, 1, None)], 18 * S) == {ONE: 0}


def test_a_clock_that_goes_back_makes_no_negative_age() -> None:
    assert LagWatch().ages_s([Standing(ONE, 1, 9 * S)], 5 * S) == {ONE: 0}


def test_a_partition_that_is_lost_is_shown_no_more() -> None:
    metrics = Metrics(CollectorRegistry())
    value = metrics.registry.get_sample_value
    labels = {"topic": "posts", "partition": "0"}
    metrics.show_lag({ONE: 5, TWO: 1}, {ONE: 2.0, TWO: 0.0})
    assert value("stream_guard_lag_records", labels) == 5
    metrics.show_lag({TWO: 1}, {TWO: 0.0})
    assert value("stream_guard_lag_records", labels) is None
    assert value("stream_guard_oldest_unjudged_age_seconds", labels) is None


def test_a_stage_has_its_own_buckets_and_no_other_can_be_made_up() -> None:
    metrics = Metrics(CollectorRegistry())
    metrics.observe_stage("judge", [2 * S, 20_000_000])
    metrics.observe_stage("publish", [3 * S], 4)
    value = metrics.registry.get_sample_value
    found = {
        stage: (
            value("stream_guard_stage_seconds_count", {"stage": stage}),
            value("stream_guard_stage_seconds_sum", {"stage": stage}),
            value("stream_guard_stage_seconds_bucket", {"stage": stage, "le": "0.025"}),
        )
        for stage in STAGES
    }
    assert found == {"wait": (0, 0, 0), "judge": (2, 2.02, 1), "publish": (4, 12, 0)}
    with pytest.raises(KeyError):
        metrics.observe_stage("a post's text", [1])
