"""The demo, as a newcomer runs it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.integration.harness import HANG_S

if TYPE_CHECKING:
    from pathlib import Path


def _start(folder: Path) -> subprocess.Popen[str]:
    # A folder of its own: the demo keeps its output where it runs.
    return subprocess.Popen(
        [sys.executable, "-m", "stream_guard.cli.demo"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def _left(seen: set[psutil.Process]) -> list[str]:
    _, alive = psutil.wait_procs(list(seen), timeout=HANG_S)
    return [str(process) for process in alive]


def test_the_demo_accounts_for_every_record_and_shows_an_edit_at_work(tmp_path: Path) -> None:
    demo = _start(tmp_path)
    printed, _ = demo.communicate(timeout=HANG_S)
    assert demo.returncode == 0, printed
    before, _, after = printed.partition("A moderator edits")
    assert sum(" safeguard " in line for line in before.splitlines()) == 41
    assert sum("dead letter " in line for line in before.splitlines()) == 4
    again = [line for line in after.splitlines() if " safeguard " in line]
    assert len(again) == 17
    changed = [line for line in again if " was " in line]
    assert len(changed) >= 5
    now_violating = [line for line in changed if "was safe" in line]
    assert now_violating
    assert all(" HR2.a " in line for line in now_violating), printed
    assert any("undetermined" in line and "for people" in line for line in before.splitlines())
    assert "The policy leaves this post to people: Does anybody have medicine" in printed
    assert "is not a moderation model" in printed
    _, _, overruled = after.partition("A reviewer overrules")
    assert [" safe " in line for line in overruled.splitlines() if " human " in line] == [True] * 2
    policy = tmp_path / "demo-output" / "policies" / "house-rules" / "policy.md"
    assert "HR2.a Posts about umbrellas" in policy.read_text()
    lines = (tmp_path / "demo-output" / "verdicts.jsonl").read_text().splitlines()
    versions = {json.loads(line)["policy"]["version"] for line in lines if '"house-rules"' in line}
    assert len(versions) == 2, "one before the edit, one after it"


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
    deadline_s = time.monotonic() + HANG_S
    while len(seen) < 6:  # two watchdogs, Kafka, the consumer, its engine's two
        seen.update(process.children(recursive=True))
        assert time.monotonic() < deadline_s, seen
    demo.send_signal(number)
    printed, _ = demo.communicate(timeout=HANG_S)
    assert demo.returncode == exit_code, printed
    assert _left(seen) == []
