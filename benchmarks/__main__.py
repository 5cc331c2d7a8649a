"""Runs all benchmarks in turn and prints their targets: ``make bench``, or ``python -m benchmarks``.

Each benchmark is its own process with its defaults. It writes its report to ``bench-output/``; one table of all
targets comes last. Each takes about ten minutes on two idle cores. Other load makes the figures worthless. Exit
code 1: a missed target, different counts, or a benchmark that failed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson

from benchmarks.report import OUTPUT, ROOT, Report, Table, finish

if TYPE_CHECKING:
    from collections.abc import Sequence

BENCHMARKS: Final[dict[str, tuple[str, ...]]] = {
    "engine_feed": ("engine_feed",),
    "serving": ("serving",),
    "serving_short": ("serving", "--workload", "short"),
    "frameworks": ("frameworks",),
    "grouping": ("grouping",),
    "scale": ("scale",),
    "latency": ("latency",),
    "capacity": ("capacity",),
    "lanes": ("lanes",),
}
"""By name: the module and its options."""


def run_all(names: Sequence[str], output: Path, words: Sequence[str], report: Report) -> None:
    """Run benchmarks in turn and fill the report with their targets and complaints."""
    rows: list[tuple[str, str, Any, str, str]] = []
    for name in names:
        place = output / name
        print(f"== {name}", flush=True)
        module, *options = BENCHMARKS[name]
        command = [sys.executable, "-m", f"benchmarks.{module}", *options]
        command += ["--output", str(place), *words]
        before = _folders(place)
        code = run_one(command)
        new = sorted(_folders(place) - before)
        if not new:
            report.complaints.append(f"{name} ended with {code} and left no report")
            continue
        found: dict[str, Any] = orjson.loads((new[-1] / "report.json").read_bytes())
        report.complaints += [f"{name}: {one}" for one in found["complaints"]]
        if code != found["exit_code"]:
            report.complaints.append(f"{name} ended with {code}")
        report.raw.append({"benchmark": name, "exit_code": code, **found})
        rows += [
            (name, one["name"], one["value"], one["bound"], one["state"])
            for one in found["targets"]
        ]
        if any(one["state"] == "missed" for one in found["targets"]):
            report.missed.append(name)
    columns = ("benchmark", "target", "value", "bound", "state")
    report.tables.append(Table("Targets of all", columns, rows))


def run_one(command: Sequence[str]) -> int:
    """Run a benchmark; return its exit code."""
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def _folders(place: Path) -> set[Path]:
    return {one for one in place.iterdir() if one.is_dir()} if place.is_dir() else set()


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only",
        nargs="*",
        choices=tuple(BENCHMARKS),
        default=list(BENCHMARKS),
        help="which, in this order (default: all)",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="smoke runs: counts are checked, targets are not judged",
    )
    parser.add_argument(
        "--output", type=Path, default=OUTPUT, help=f"where reports go (default {OUTPUT})"
    )
    return parser.parse_args(words)


def main() -> int:
    """Run them; return the exit code."""
    options = parse()
    report = Report(
        "all", "All benchmarks and their targets.", {"only": options.only}, quick=options.quick
    )
    output = options.output.resolve()
    run_all(options.only, output, ["--quick"] if options.quick else [], report)
    return finish(report, output)


if __name__ == "__main__":
    sys.exit(main())
