"""What benchmarks hand over: tables, targets, pictures, and the sums behind them."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

import orjson
import pytest

from benchmarks.curves import Curve, draw
from benchmarks.figures import (
    Point,
    SameLatency,
    gained,
    interleaved,
    load_within,
    median,
    p99_at,
    percentile,
    ratios,
    same_latency,
)
from benchmarks.report import Report, Table, Target, finish

if TYPE_CHECKING:
    from pathlib import Path


def make_report(*, quick: bool = False) -> Report:
    return Report("sums", "Sums, compared.", {"posts": 10}, quick=quick, machine={"cores": 2})


# Sums


def test_a_percentile_is_a_value_that_was_seen() -> None:
    values = [5.0, 1.0, 4.0, 2.0, 3.0]
    assert percentile(values, 0.5) == 3.0
    assert percentile(values, 0.99) == 5.0
    assert percentile(values, 0.0) == 1.0
    assert percentile(range(1, 101), 0.99) == 99


def test_of_nothing_there_is_no_percentile_and_no_median() -> None:
    assert percentile([], 0.5) is None
    assert median([None, None]) is None


def test_a_median_leaves_out_what_was_not_measured() -> None:
    assert median([3.0, None, 1.0]) == 2.0


def test_ratios_are_of_pairs_and_a_missing_side_has_none() -> None:
    assert ratios([2.0, 3.0, None], [4.0, None, 1.0]) == [0.5, None, None]
    assert ratios([2.0], [0.0]) == [None]
    with pytest.raises(ValueError, match="zip"):
        ratios([1.0], [1.0, 2.0])


def test_rounds_go_forth_and_back() -> None:
    assert list(interleaved(("a", "b"), 3)) == [
        *((0, "a"), (0, "b")),
        *((1, "b"), (1, "a")),
        *((2, "a"), (2, "b")),
    ]


def curve(*points: tuple[float, float, float]) -> list[Point]:
    return [Point(offered, achieved, 1.0, p99_ms) for offered, achieved, p99_ms in points]


def test_the_load_within_a_latency_lies_between_points() -> None:
    points = curve((100, 100, 10), (200, 200, 30))
    assert load_within(points, 20) == 150
    assert load_within(points, 30) == 200
    assert load_within(points, 1_000) == 200
    assert load_within(points, 9) is None


def test_a_p99_lies_between_points() -> None:
    points = curve((200, 200, 30), (100, 100, 10))
    assert p99_at(points, 100) == 10
    assert p99_at(points, 150) == 20
    assert p99_at(points, 99) is None
    assert p99_at(points, 201) is None


def test_loads_are_compared_at_the_latency_that_we_have_at_ours() -> None:
    ours = curve((100, 100, 10), (200, 200, 30))
    theirs = curve((50, 50, 10), (100, 100, 30), (150, 150, 5_000))
    found = same_latency(ours, theirs, 150)
    assert found == SameLatency(20.0, 150, 75.0, within=True)
    assert found.ratio == 2.0


def test_whoever_is_slower_at_every_load_is_compared_at_the_lowest() -> None:
    ours, theirs = curve((100, 100, 10), (200, 200, 30)), curve((40, 40, 100), (80, 80, 110))
    assert same_latency(ours, theirs, 160) == SameLatency(22.0, 160, 40, within=False)


def test_a_load_that_was_not_measured_is_not_compared() -> None:
    ours = curve((100, 100, 10), (200, 200, 30))
    assert same_latency(ours, ours, 250) is None
    assert same_latency(ours, [], 150) is None


def test_a_gain_is_a_share_of_what_can_be_gained() -> None:
    assert gained(15.0, 10.0, 20.0) == 0.5
    assert gained(10.0, 10.0, 10.4) is None


# Tables and targets


def test_a_table_is_markdown_with_numbers_to_the_right() -> None:
    table = Table("T", ("side", "posts/s"), [("a | b", 1234.5), ("c", None)], digits=1)
    assert table.markdown().splitlines() == [
        "### T",
        "",
        "| side | posts/s |",
        "| --- | ---: |",
        "| a \\| b | 1,234.5 |",
        "| c | not measured |",
    ]


def test_a_table_keeps_all_digits_in_json() -> None:
    table = Table("T", ("side", "posts/s"), [("a", math.pi)], digits=1)
    assert table.document()["rows"] == [{"side": "a", "posts/s": math.pi}]


def test_a_row_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="1 cells under 2 headings"):
        Table("T", ("a", "b"), [("1",)])


@pytest.mark.parametrize(
    ("target", "state"),
    [
        (Target("t", 0.95, at_least=0.95), "reached"),
        (Target("t", 0.94, at_least=0.95), "missed"),
        (Target("t", 50, at_most=50), "reached"),
        (Target("t", 51, at_most=50), "missed"),
        (Target("t", None, at_most=50), "missed"),
        (Target("t", 51, at_most=50, judged=False), "not judged"),
    ],
)
def test_a_target_is_reached_or_missed(target: Target, state: str) -> None:
    assert target.state == state


@pytest.mark.parametrize("bounds", [{}, {"at_least": 1.0, "at_most": 2.0}])
def test_a_target_has_one_bound(bounds: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="one bound"):
        Target("t", 1.0, **bounds)


def test_a_missed_target_and_a_wrong_count_fail_the_benchmark() -> None:
    report = make_report()
    assert report.exit_code == 0
    report.aim("ratio", 0.9, at_least=0.95)
    assert report.exit_code == 1
    assert make_report().exit_code == 0


def test_a_quick_run_judges_counts_alone() -> None:
    report = make_report(quick=True)
    report.aim("ratio", 0.1, at_least=0.95)
    assert report.exit_code == 0
    assert "its figures say nothing" in report.markdown()
    report.complaints.append("9 verdicts of 10")
    assert report.exit_code == 1


def test_a_report_writes_all_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = make_report()
    report.tables.append(Table("T", ("side", "posts/s"), [("a", 1.0)]))
    report.aim("ratio", 0.9, at_least=0.95)
    report.pictures["latency.svg"] = "<svg/>"
    report.raw.append({"side": "a", "seconds": 1.5})
    assert finish(report, tmp_path) == 1
    (folder,) = tmp_path.iterdir()
    assert folder.name.startswith("sums-")
    text = (folder / "report.md").read_text("utf-8")
    assert "| ratio | 0.90 | at least 0.95 | missed |" in text
    assert "- cores: 2" in text
    assert "![latency](latency.svg)" in text
    assert orjson.loads((folder / "raw.json").read_bytes()) == [{"side": "a", "seconds": 1.5}]
    document = orjson.loads((folder / "report.json").read_bytes())
    assert document["targets"][0]["state"] == "missed"
    assert (folder / "latency.svg").read_text("utf-8") == "<svg/>"
    assert str(folder) in capsys.readouterr().out


def test_the_machine_says_what_a_figure_stands_on() -> None:
    machine = Report("sums", "Sums.", {}).machine
    assert machine["cores"] >= 1
    assert "aiokafka" in machine["versions"]
    assert machine["Python"]
    assert "GiB" in machine["memory"]
    assert len(machine["load average at first"].split(", ")) == 3


# Pictures


def test_equal_curves_make_equal_pictures_with_text_in_them() -> None:
    curves = [Curve("ours", [(2, 20), (1, 10)]), Curve("theirs", [(1, 30)])]
    first = draw("Latency", "posts/s", "ms", curves, logarithmic=True)
    assert first == draw("Latency", "posts/s", "ms", curves, logarithmic=True)
    root = ET.fromstring(first)  # noqa: S314 - our own
    words = {element.text for element in root.iter() if element.tag.endswith("text")}
    assert {"Latency", "posts/s", "ms", "ours", "theirs"} <= words
