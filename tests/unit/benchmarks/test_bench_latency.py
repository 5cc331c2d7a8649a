"""What the benchmarks of latency, grouping and frameworks make of their runs."""

from __future__ import annotations

import pytest

from benchmarks import frameworks, grouping
from benchmarks.latency import STAGES, stage_table, stages_of
from benchmarks.report import Report
from benchmarks.traffic import Seen

SEEN = Seen(
    post="p",
    policy="rules",
    appended_ms=1_000,
    consumed_ms=1_010,
    judged_ms=1_100,
    published_ms=1_102,
    verdict_ms=1_110,
    model_ms=70.0,
    prompt_tokens=0,
    cached_tokens=0,
    output_tokens=0,
    attempts=1,
    undetermined=False,
)


def test_stages_add_up_to_all() -> None:
    found = stages_of(SEEN)
    assert found == {"fetch": 10, "pipeline": 22, "model": 70, "publish": 8, "all": 110}
    assert sum(found[stage] for stage in STAGES if stage != "all") == found["all"]


def test_the_model_s_time_is_within_the_judge_s() -> None:
    # Microseconds against milliseconds: rounding must not make a stage negative.
    assert stages_of(SEEN._replace(model_ms=90.7))["pipeline"] == 2


def test_a_table_has_all_stages_and_nothing_of_nothing() -> None:
    rows = stage_table("", [SEEN, SEEN._replace(verdict_ms=1_120)]).rows
    assert [row[0] for row in rows] == list(STAGES)
    assert rows[-1][1:] == (110, 120, 115)
    assert stage_table("", []).rows[0][1:] == (None, None, None)


@pytest.mark.parametrize(
    ("found", "state"),
    [
        ((0.8, 0.2, 0.8, 0.9), "reached"),
        ((0.4, 0.2, 0.8, 0.9), "missed"),
        ((0.9, None, 0.8, 0.9), "missed"),
        ((0.9, 0.9, 0.9, 0.91), None),
    ],
)
def test_grouping_is_held_against_what_sorting_gains(
    found: tuple[float | None, ...], state: str | None
) -> None:
    report = Report("grouping", "", {})
    judged = grouping.aim(report, "hit rate", dict(zip(grouping.SIDES, found, strict=True)))
    assert judged == bool(report.targets)
    assert [one.state for one in report.targets] == ([state] if state else [])


def test_a_limit_is_told_by_its_bucket() -> None:
    assert grouping.bucket_ms([10, 25, 50], 20) == 25
    assert grouping.bucket_ms([10, 25, 50], 25) == 25
    assert grouping.bucket_ms([10, 25, 50], 99) == 50


def test_frameworks_stand_beside_the_bare_loop() -> None:
    report = Report("frameworks", "", {})
    rates = {"bare": [100.0, 200.0], "guard": [70.0, 120.0], "faststream": [50.0, None]}
    frameworks.fill_report(report, rates)
    rows = {row[0]: row[1:] for row in report.tables[0].rows}
    assert rows["guard"] == pytest.approx((95.0, 0.65))
    assert rows["faststream"] == pytest.approx((50.0, 0.5))
    assert report.targets[0].state == "reached"
