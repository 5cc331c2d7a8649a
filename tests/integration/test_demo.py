"""The demo shows what it promises, and leaves nothing behind when it is interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import jsonschema
import orjson
import psutil
import pytest

from stream_guard.demo.posts import BROKEN
from stream_guard.verdict import verdict_schema

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Run the demo in an empty folder, as ``make demo`` does in the project's."""
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("STREAM_GUARD_")},
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "STREAM_GUARD_POLICIES__PATH": str(ROOT / "policies"),
    }
    with subprocess.Popen(
        [sys.executable, "-m", "stream_guard.demo"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()  # what it started ends with it


def test_the_demo_accounts_for_every_record_and_keeps_its_verdicts(
    demo: subprocess.Popen[str], tmp_path: Path
) -> None:
    text, _ = demo.communicate()
    assert demo.returncode == 0, text
    kept = (tmp_path / "demo-output" / "verdicts.jsonl").read_bytes().splitlines()
    validator = jsonschema.Draft202012Validator(verdict_schema())
    for line in kept:
        validator.validate(orjson.loads(line))
    shown = [line for line in text.splitlines() if " safeguard " in line]
    assert len(shown) == len(kept) >= 40
    assert text.count("dead letter  ") == len(BROKEN)
    assert "random weights" in text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_demo_leaves_no_process_behind(
    demo: subprocess.Popen[str], number: signal.Signals
) -> None:
    assert demo.stdout is not None
    for line in demo.stdout:
        if "the engine is starting" in line:
            break
    brood = psutil.Process(demo.pid).children(recursive=True)
    assert len(brood) >= 4, "the broker, the consumer, and a watchdog each"
    if number is signal.SIGINT:
        os.killpg(demo.pid, number)  # as a terminal does: to the whole foreground group
    else:
        demo.send_signal(number)
    demo.communicate()
    assert demo.returncode == (-number if number is signal.SIGKILL else 130)
    _, left = psutil.wait_procs(brood, timeout=60)
    assert not left, left
