"""Quantiles and longest of a page's histograms."""

from __future__ import annotations

import math

import pytest

from benchmarks.histograms import buckets_of, longest, quantile, since

PAGE = """\
# TYPE wait_seconds histogram
wait_seconds_bucket{le="0.01",stage="a"} 2
wait_seconds_bucket{le="0.1",stage="a"} 8
wait_seconds_bucket{le="+Inf",stage="a"} 10
wait_seconds_sum{stage="a"} 1
wait_seconds_count{stage="a"} 10
wait_seconds_bucket{le="0.01",stage="b"} 1
wait_seconds_bucket{le="0.1",stage="b"} 1
wait_seconds_bucket{le="+Inf",stage="b"} 1
"""
CLOSED = [(0.01, 2.0), (0.1, 10.0), (math.inf, 10.0)]


def test_series_are_told_apart_and_added_up() -> None:
    assert buckets_of(PAGE, "wait_seconds", stage="a") == [(0.01, 2), (0.1, 8), (math.inf, 10)]
    assert buckets_of(PAGE, "wait_seconds") == [(0.01, 3), (0.1, 9), (math.inf, 11)]
    assert buckets_of(PAGE, "wait") == []


def test_a_quantile_lies_on_a_line_within_its_bucket() -> None:
    assert quantile(CLOSED, 0.1) == pytest.approx(0.005)
    assert quantile(CLOSED, 0.6) == pytest.approx(0.01 + 0.09 * 4 / 8)
    assert quantile(CLOSED, 1) == pytest.approx(0.1)


def test_the_open_bucket_gives_its_lower_edge() -> None:
    assert quantile(buckets_of(PAGE, "wait_seconds", stage="a"), 0.99) == pytest.approx(0.1)
    assert longest(buckets_of(PAGE, "wait_seconds", stage="a")) == math.inf


def test_the_longest_is_bounded_by_its_bucket() -> None:
    assert longest(CLOSED) == pytest.approx(0.1)
    assert longest(buckets_of(PAGE, "wait_seconds", stage="b")) == pytest.approx(0.01)


def test_what_was_seen_before_is_left_out() -> None:
    start = [(0.01, 1.0), (0.1, 1.0), (math.inf, 2.0)]
    assert since(start, [(0.01, 3.0), (0.1, 4.0), (math.inf, 5.0)]) == [
        (0.01, 2.0),
        (0.1, 3.0),
        (math.inf, 3.0),
    ]
    assert since([], CLOSED) == CLOSED
    assert longest(since(CLOSED, CLOSED)) is None


def test_nothing_seen_is_no_figure() -> None:
    for empty in ([], [(0.01, 0.0), (math.inf, 0.0)]):
        assert quantile(empty, 0.99) is None
        assert longest(empty) is None
