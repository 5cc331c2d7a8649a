"""The demo, as a newcomer runs it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.integration.harness import ROOT

if TYPE_CHECKING:
    from pathlib import Path


def _start(folder: Path) -> subprocess.Popen[str]:
    # A folder of its own: the demo keeps its output and its model where it runs.
    (folder / "policies").symlink_to(ROOT / "policies")
    return subprocess.Popen(
        [sys.executable, "-m", "stream_guard.demo"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def _left(seen: set[psutil.Process]) -> list[str]:
    _, alive = psutil.wait_procs(list(seen), timeout=60)
    return [str(process) for process in alive]


def test_the_demo_prints_verdicts_and_accounts_for_every_record(tmp_path: Path) -> None:
    demo = _start(tmp_path)
    printed, _ = demo.communicate(timeout=300)
    assert demo.returncode == 0, printed
    lines = printed.splitlines()
    assert sum(" safeguard " in line for line in lines) >= 40
    assert sum("dead letter " in line for line in lines) == 4
    assert "random weights" in printed
    assert (tmp_path / "demo-output" / "verdicts.jsonl").read_text().count("\n") >= 40


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_ending_the_demo_leaves_no_process_behind(
    tmp_path: Path, number: signal.Signals, exit_code: int
) -> None:
    demo = _start(tmp_path)
    assert demo.stdout is not None
    seen: set[psutil.Process] = set()
    for line in demo.stdout:
        if "the engine is starting" in line:
            break
    # The engine's own processes come while its imports run.
    process = psutil.Process(demo.pid)
    deadline_s = time.monotonic() + 120
    while len(seen) < 6:  # two watchdogs, Kafka, the consumer, its engine's two
        seen.update(process.children(recursive=True))
        assert time.monotonic() < deadline_s, seen
    demo.send_signal(number)
    printed, _ = demo.communicate(timeout=120)
    assert demo.returncode == exit_code, printed
    assert _left(seen) == []
