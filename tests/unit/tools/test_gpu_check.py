"""What the check for a GPU makes of what it reads, and that it ends by itself."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from benchmarks.report import Report
from tests.hang import HANG_S
from tools import gpu_check

if TYPE_CHECKING:
    from pathlib import Path

DMON = (
    "# gpu     sm    mem    enc    dec    jpg    ofa\n"
    "# Idx      %      %      %      %      %      %\n"
    "    0     43     17      0      0      0      0\n"
    "    1     99     17      0      0      0      0\n"
    "    0    100      9      -      -      -      -\n"
    "    0      -      -      -      -      -      -\n"
)


def test_the_first_cards_load_is_read() -> None:
    found = [gpu_check.load_of(line) for line in DMON.splitlines()]
    assert found == [None, None, 43.0, None, 100.0, None]


def test_ratios_and_the_cards_load_are_judged_by_size() -> None:
    report = Report("gpu-check", "", {}, machine={})
    for side, written in (("always", 1_000), ("on_retry", 1_700), ("offline", 1_750)):
        gpu_check.add_run(report, side, 256, written, 2.0, [60.0, 90.0])
    gpu_check.add_run(report, "always", 1_024, 10, 1.0, [])
    gpu_check.fill_report(report)
    targets = {target.name: (target.value, target.state) for target in report.targets}
    assert targets["on_retry / always, 256 side by side"] == (1.7, "reached")
    assert targets["on_retry / offline, 256 side by side"] == (
        pytest.approx(1_700 / 1_750),
        "reached",
    )
    assert targets["card busy in on_retry, %, 256 side by side"] == (75.0, "reached")
    assert targets["on_retry / always, 1024 side by side"] == (None, "missed")
    assert report.raw[0]["step_ms"] == pytest.approx(1_000 * 256 / 500)


def test_it_reports_what_it_has_and_ends_its_processes_when_the_time_is_over(
    tmp_path: Path,
) -> None:
    code = (
        "import subprocess, sys, threading\n"
        "from pathlib import Path\n"
        "from benchmarks.report import Report\n"
        "from tools import gpu_check\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "report = Report('gpu-check', '', {}, machine={})\n"
        "gpu_check.add_run(report, 'always', 2, 10, 1.0, [])\n"
        f"threading.Timer(0, gpu_check.end_all, (report, Path({str(tmp_path)!r}))).start()\n"
        "child.wait()\n"
        "threading.Event().wait()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=HANG_S, check=False
    )
    assert done.returncode == gpu_check.OVER, done.stderr
    assert "the time was over" in done.stdout
    assert list(tmp_path.glob("gpu-check-*/report.md"))
