"""The output of a process whose log is JSON: every line is one object, also those of libraries."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from stream_guard.telemetry.json_lines import as_object
from tests.hang import HANG_S

PROGRAM = """
import ctypes, logging, os, subprocess, sys
import structlog
from stream_guard.settings import TelemetrySettings
from stream_guard.telemetry.logs import configure_logs

configure_logs(TelemetrySettings(log_format=sys.argv[1]), whole_output=True)
print("to stdout")
os.write(2, b"libnuma: Warning: cpu argument 3 is out of range\\n\\n")
subprocess.run([sys.executable, "-c", "print('(EngineCore pid=7) ERROR 11-28 [core.py:1] it failed')"])
structlog.get_logger("ours").info("one of ours")
sys.stderr.write("no end of line")
if sys.argv[2] == "abort":
    sys.stderr.flush()
    os.abort()
raise ValueError("at the end")
"""


def run(log_format: str, ending: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, log_format, ending],
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )


@pytest.mark.parametrize(("ending", "code"), [("raise", 1), ("abort", -6)])
def test_every_line_is_one_object_also_those_of_the_end(ending: str, code: int) -> None:
    done = run("json", ending)
    assert done.returncode == code
    assert done.stdout == ""
    lines: list[dict[str, Any]] = [json.loads(line) for line in done.stderr.splitlines()]
    events = {line["event"]: line for line in lines}
    assert {"to stdout", "one of ours"} <= events.keys()
    (numa,) = [line for event, line in events.items() if event.startswith("libnuma")]
    (engine,) = [line for event, line in events.items() if "EngineCore" in event]
    assert (numa["level"], engine["level"]) == ("info", "error")
    assert all({"level", "timestamp"} <= line.keys() for line in lines)
    assert any(event.startswith("no end of line") for event in events)
    assert any("at the end" in event for event in events) == (ending == "raise")


def test_a_console_gets_the_output_as_it_is() -> None:
    done = run("console", "raise")
    assert done.stdout.startswith("to stdout\n")
    assert "libnuma: Warning: cpu argument 3 is out of range\n" in done.stderr


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("WARNING:root:x", "warning"),
        ("(EngineCore pid=1) INFO 11-28 [a.py:1] x", "info"),
        ("W1128 15:58:39.174000 9270 torch/utils/flop_counter.py:29] triton not found", "warning"),
        ("a line of ERROR", "info"),
        ("\x1b[31mERROR\x1b[0m red", "error"),
    ],
)
def test_a_level_that_a_line_states_is_kept(line: str, level: str) -> None:
    made = as_object(line)
    assert made is not None
    assert json.loads(made)["level"] == level


def test_objects_stay_and_blank_lines_go() -> None:
    assert as_object('{"event": "x"}\n') == '{"event": "x"}'
    assert as_object(" \n") is None
    broken = as_object('{"event": ')
    assert broken is not None
    assert json.loads(broken)["event"] == '{"event":'


def test_a_wrong_setting_is_one_object_too() -> None:
    environment = {
        **os.environ,
        "STREAM_GUARD_TELEMETRY__LOG_FORMAT": "json",
        "STREAM_GUARD_KAFKA__TOPICS": "no list",
    }
    command = [sys.executable, "-m", "stream_guard", "run"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert lines
    assert lines[0]["level"] == "error"
    assert "lists and tables are JSON" in " ".join(line["event"] for line in lines)
