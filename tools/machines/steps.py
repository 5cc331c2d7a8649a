"""Steps of a check. Each has a result and a duration, and becomes a row of a table."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_POLL_S = 0.25


class StepError(Exception):
    """A step did not see what it has to see."""


@dataclass
class Step:
    """One row: ``seen`` is filled in by the step itself."""

    name: str
    seen: str = ""
    duration_s: float = 0.0


@dataclass
class Steps:
    """All rows, and the versions that they were seen with."""

    title: str
    versions: dict[str, str]
    rows: list[Step] = field(default_factory=list)
    started_s: float = field(default_factory=time.monotonic)

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Time a step; a failure is shown with the table so far and ends the program."""
        row = Step(name)
        print(f"==> {name}", file=sys.stderr, flush=True)
        begun_s = time.monotonic()
        try:
            yield row
        except (StepError, TimeoutError, subprocess.CalledProcessError) as error:
            row.duration_s = time.monotonic() - begun_s
            row.seen = f"FAILED: {_shown(error)}"
            self.rows.append(row)
            print(self.table())
            raise SystemExit(1) from error
        row.duration_s = time.monotonic() - begun_s
        self.rows.append(row)
        print(f"    {row.seen} ({row.duration_s:.0f} s)", file=sys.stderr, flush=True)

    def show(self) -> None:
        """Print the table; write it into the file that ``TABLE`` names, too."""
        print(self.table())
        if os.environ.get("TABLE"):
            Path(os.environ["TABLE"]).write_text(self.table() + "\n")

    def table(self) -> str:
        """Return the rows as Markdown, below the date and the versions."""
        minutes = (time.monotonic() - self.started_s) / 60
        today = dt.datetime.now(dt.UTC).date()
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        lines = [
            f"{self.title}, {today}, {minutes:.1f} minutes; {versions}.",
            "",
            "| step | seen | s |",
            "| --- | --- | ---: |",
            *(f"| {row.name} | {row.seen} | {row.duration_s:.0f} |" for row in self.rows),
        ]
        return "\n".join(lines)


def _shown(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        said = " ".join(str(error.stderr or error.stdout or "").split())
        return (
            f"`{' '.join(map(str, error.cmd))[:160]}` ended with {error.returncode}: {said[-600:]}"
        )
    return " ".join(str(error).split()) or type(error).__name__


def need(condition: object, message: str) -> None:
    """Fail the step unless a condition holds."""
    if not condition:
        raise StepError(message)


def execute(
    *command: object, timeout_s: float = 600, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; its output is kept."""
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        check=check,
        timeout=timeout_s,
    )


def until(what: str, condition: Callable[[], Any], timeout_s: float) -> Any:
    """Return a condition's value once it is true.

    Raises:
        TimeoutError: it did not become true in time.
    """
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        found = condition()
        if found:
            return found
        time.sleep(_POLL_S)
    message = f"{what} did not happen within {timeout_s:.0f} s"
    raise TimeoutError(message)


def not_json(text: str) -> list[str]:
    """Return the lines that are not one JSON object."""
    bad = []
    for line in filter(None, text.splitlines()):
        try:
            found = json.loads(line)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            bad.append(line)
    return bad
