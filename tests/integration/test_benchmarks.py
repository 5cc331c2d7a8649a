"""The benchmarks' way from the command to the table of targets, on a broker of its own, by a smoke run of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from tests.integration.harness import run_python

if TYPE_CHECKING:
    from pathlib import Path


def test_a_smoke_run_counts_verdicts_and_judges_no_target(tmp_path: Path) -> None:
    words = ["-m", "benchmarks", "--quick", "--only", "frameworks", "--output", str(tmp_path)]
    done = run_python(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    (whole,) = tmp_path.glob("all-*/report.json")
    (one,) = tmp_path.glob("frameworks/*/report.json")
    report, part = orjson.loads(whole.read_bytes()), orjson.loads(one.read_bytes())
    assert report["complaints"] == part["complaints"] == []
    assert [target["state"] for target in part["targets"]] == ["not judged"]
    (found,) = orjson.loads((whole.parent / "raw.json").read_bytes())
    assert found["benchmark"] == "frameworks"
    runs = orjson.loads((one.parent / "raw.json").read_bytes())
    assert {run["side"] for run in runs} == {"bare", "guard", "cascade", "faststream", "arroyo"}
    assert all(run["rate"] > 0 for run in runs)


def test_a_small_backfill_is_compared_with_classify(tmp_path: Path) -> None:
    sizes = ("--posts", "300", "--first", "100", "--block-posts", "50", "--rounds", "1")
    words = (*sizes, "--engine", "scripted")
    done = run_python("-m", "benchmarks.backfill", *words, "--json", str(tmp_path / "found"))
    assert done.returncode == 0, done.stdout + done.stderr
    found = orjson.loads((tmp_path / "found").read_bytes())
    assert found["rates"].keys() == {"classify", "at once", "backfill"}
    assert all(rate["whole"] > 0 for rate in found["rates"].values())
