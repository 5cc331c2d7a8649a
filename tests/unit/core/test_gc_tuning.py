"""The collector's threshold lies above what may be in flight, so that it does not walk all records again and again."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest

from stream_guard.core.gc_tuning import tune_garbage_collector

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def threshold() -> Iterator[None]:
    """Leave the collector as it was."""
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


@pytest.mark.parametrize(
    ("records_max", "objects"),
    [(0, 50_000), (100, 50_000), (10_000, 200_000), (1_000_000, 1_000_000)],
)
def test_the_threshold_follows_the_records_in_flight_within_bounds(
    records_max: int, objects: int
) -> None:
    tune_garbage_collector(records_max)
    young, older, _ = gc.get_threshold()
    assert young == objects
    assert young * older <= 50 * 50_000, "older objects are looked at as often as before"
    assert older >= 1


async def test_records_in_flight_do_not_start_a_collection() -> None:
    from benchmarks.cost_path import HotPath

    async with HotPath("plain") as path:
        records = path.make(10_000)
        tune_garbage_collector(len(records))
        before = [one["collections"] for one in gc.get_stats()]
        await path.take(records, acknowledge=False)
        after = [one["collections"] for one in gc.get_stats()]
    assert after == before
