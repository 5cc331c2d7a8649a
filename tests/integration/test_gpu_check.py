"""The check for a GPU, on this machine: all of its steps by the real engine, with a tiny model."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import orjson

from tests.integration.harness import HANG_S, ROOT

if TYPE_CHECKING:
    from pathlib import Path


def test_a_dry_run_takes_every_step_and_judges_no_target(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tools.gpu_check", "--dry-run", "--output", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=2 * HANG_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = tmp_path.glob("gpu-check-*/report.json")
    report = orjson.loads(path.read_bytes())
    assert report["complaints"] == []
    assert {target["state"] for target in report["targets"]} == {"not judged"}
    warmed = next(each for each in report["tables"] if each["title"] == "Warm-up of steps")
    assert warmed["rows"][0]["lengths of a step"] == 2  # 64 and 32 tokens
    runs = orjson.loads((path.parent / "raw.json").read_bytes())
    sides = ("always", "answer", "on_retry", "offline")
    assert {(run["side"], run["seqs"]) for run in runs} == {(s, n) for s in sides for n in (2, 4)}
    free = [run["tokens"] for run in runs if run["side"] in sides[2:]]
    assert sorted(free) == [2 * 12, 2 * 12, 4 * 12, 4 * 12]
