"""Compares a backfill by two actors with ``classify`` on the same file: posts per core-second, and their ratio.

    make bench-backfill ARGS="--posts 20000 --model-share 0.1 --actors 2 --rounds 3"

A core-second is a second of processor time, of the command and all processes that it starts, so other load on the
machine matters little. The kernel's sum lacks what a parent that ignores its children's ends had below it, as Ray's
raylet does. Samples lack what ends between two of them. Neither counts anything twice, so the larger one is taken.

Two processes at once may need more core-seconds for the same work than one, where they share a processor's caches or
its core. So a third side is as many ``classify`` at once as there are actors, each on its part of the file.

In each round a side runs twice, one run right after the other: on the whole file and on its first posts. ``whole``
counts everything, with the start of one engine or of several and of Ray. ``judging`` is the difference of both runs:
what further posts cost. A start costs more than the posts do, and one differs from the next; the first on a machine
compiles modules, too. So the medians of all rounds count. ``judging`` says nothing where further posts cost less than
starts differ; then more posts are needed.
Most posts end in the tier ``rules``; the others go to the demo model. The target is for ``judging``, because the start
costs the same for a year of history as for a file.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import orjson
import psutil
import pyarrow.parquet as pq

from benchmarks.figures import interleaved

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parent.parent
SLUG = "house-rules"
SIDES = ("classify", "at once", "backfill")
RATIO_MIN = 0.9
Rates: TypeAlias = dict[str, float | None]
"""Posts per core-second or ratios of them, by ``whole`` and ``judging``."""
_PR_SET_CHILD_SUBREAPER = 36
_ORPHANS_S = 60
_SAMPLE_S = 0.2
_RULES = """\
rules:
  - {id: harmless, outcome: safe, terms: [bicycle repair stand, museum garden, my gran says hi]}
  - {id: bad, outcome: violates, category: HR1, terms: [climbed the crane]}
"""
_WORDS = [
    "shop",
    "front",
    "friday",
    "concert",
    "music",
    "film",
    "bread",
    "rain",
    "window",
    "school",
    "training",
    "really",
    "nobody",
]
_SETTLED = ("bicycle repair stand", "museum garden", "my gran says hi", "climbed the crane")


class Run(NamedTuple):
    """One run of a side.

    Attributes:
        posts: that were judged.
        by_model: how many of them by the model.
        core_s: processor time, in s.
        wall_s: from the start of the command to its end, in s.
    """

    posts: int
    by_model: int
    core_s: float
    wall_s: float


class Round(NamedTuple):
    """The two runs of a side in one round: on the first posts, then on all."""

    whole: Run
    first: Run


def write_posts(file: Path, count: int, model_share: float) -> None:
    """Write posts with texts of their own; this share of them no rule settles."""
    drawn = random.Random(1)  # noqa: S311 - repeated, not secret
    with file.open("wb") as out:
        for number in range(count):
            words = " ".join(drawn.choices(_WORDS, k=8))
            settled = drawn.random() >= model_share
            text = f"{words} {drawn.choice(_SETTLED)} {number}" if settled else f"{words} {number}"
            out.write(orjson.dumps({"id": f"p{number}", "text": text, "language": "en"}) + b"\n")


def adopt_orphans() -> None:
    """Become the parent of all processes below whose own parent ends, so that their time counts here (prctl(2)).

    Raises:
        OSError: the kernel refuses.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _ended_s() -> float:
    """Wait until no process is left below this one; return the processor time of all that ended so far, in s."""
    deadline_s = time.monotonic() + _ORPHANS_S
    while left := psutil.Process().children():
        psutil.wait_procs(left, timeout=1)  # this also takes their time over from the kernel
        if time.monotonic() > deadline_s:
            names = ", ".join(one.name() for one in left)
            raise SystemExit(f"processes still run {_ORPHANS_S} s after the command ended: {names}")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Watch(threading.Thread):
    """Samples the processor time of all processes below this one, until it is stopped."""

    def __init__(self) -> None:
        super().__init__(name="watch", daemon=True)
        self._seen_s: dict[psutil.Process, float] = {}
        self._over = threading.Event()

    def run(self) -> None:
        """Sample until stopped."""
        while not self._over.wait(_SAMPLE_S):
            self.sample()

    def sample(self) -> None:
        """Look at all processes once. One that is gone keeps the last time that it was seen with."""
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                self._seen_s[process] = times.user + times.system

    def stop(self) -> float:
        """Stop; return the processor time of all that were seen, in s."""
        self._over.set()
        self.join()
        return sum(self._seen_s.values())


class Command(NamedTuple):
    """One command, and the file for its output."""

    words: tuple[str, ...]
    output: Path


def measure(commands: Sequence[Command], environment: dict[str, str]) -> tuple[float, float]:
    """Run commands at once; return their processor time, with all processes below them, and how long it took, in s."""
    before_s, began_s = _ended_s(), time.monotonic()
    (watch := Watch()).start()
    running = []
    for one in commands:
        words = [sys.executable, "-m", "stream_guard", *one.words]
        with one.output.open("wb") as out:
            running.append(subprocess.Popen(words, env=environment, cwd=ROOT, stdout=out))
    for one, process in zip(commands, running, strict=True):
        if process.wait():
            raise SystemExit(f"{' '.join(one.words)} ended with {process.returncode}")
    wall_s = time.monotonic() - began_s
    ended_s = _ended_s()  # before the watch ends: it sees orphans, too
    return max(ended_s - before_s, watch.stop()), wall_s


def classify(file: Path, folder: Path, environment: dict[str, str], parts: int = 1) -> Run:
    """Judge a file by ``classify``, or its parts by as many at once."""
    lines = file.read_bytes().splitlines(keepends=True)
    commands = []
    for part in range(parts):
        (mine := folder / f"part-{part}.jsonl").write_bytes(b"".join(lines[part::parts]))
        words = ("classify", str(mine), "--policy", SLUG, "--json", "--no-studio")
        commands.append(Command(words, folder / f"classified-{part}.jsonl"))
    core_s, wall_s = measure(commands, environment)
    verdicts = [line for one in commands for line in one.output.read_bytes().splitlines()]
    tiers = [orjson.loads(line)["provenance"]["tier"] for line in verdicts]
    return Run(len(tiers), tiers.count("safeguard"), core_s, wall_s)


def backfill(file: Path, folder: Path, environment: dict[str, str], actors: int, block: int) -> Run:
    """Judge a file by a backfill."""
    out = folder / "history"
    shutil.rmtree(out, ignore_errors=True)
    words = ("backfill", str(file), "--policy", SLUG, "--out", str(out), "--actors", str(actors))
    more = ("--cpus", "1", "--block-posts", str(block), "--json")
    command = Command((*words, *more), folder / "report.json")
    core_s, wall_s = measure([command], environment)
    tiers = pq.read_table(out / "verdicts", columns=["tier"]).column("tier").to_pylist()
    return Run(len(tiers), tiers.count("safeguard"), core_s, wall_s)


def rates(rounds: Sequence[Round]) -> Rates:
    """Return posts per core-second by the median round, with and without the start.

    ``judging`` is None where the further posts cost nothing to see.
    """
    core_s = statistics.median(one.whole.core_s for one in rounds)
    more_s = statistics.median(one.whole.core_s - one.first.core_s for one in rounds)
    whole, first = rounds[0]
    return {
        "whole": whole.posts / core_s,
        "judging": (whole.posts - first.posts) / more_s if more_s > 0 else None,
    }


def compare(found: dict[str, Rates], side: str) -> Rates:
    """Return what the backfill does of what another side does, in each of the two ways; None where one is unknown."""
    ratios: Rates = {}
    for name in ("whole", "judging"):
        first, second = found["backfill"][name], found[side][name]
        ratios[name] = None if first is None or second is None else first / second
    return ratios


def _shown(value: float | None, digits: int) -> str:
    return "unknown" if value is None else f"{value:,.{digits}f}"


def run_sides(
    options: argparse.Namespace, folder: Path, environment: dict[str, str]
) -> dict[str, list[Round]]:
    """Run each side in each round, on the first posts and on all; print each as it ends."""
    files = {count: folder / f"{count}.jsonl" for count in (options.first, options.posts)}
    for count, file in files.items():
        write_posts(file, count, options.model_share)

    def run(side: str, count: int) -> Run:
        if side != "backfill":
            parts = 1 if side == "classify" else options.actors
            return classify(files[count], folder, environment, parts)
        # Enough blocks for every actor to start its engine in the small run, too.
        block = min(options.block_posts, max(1, count // (4 * options.actors)))
        return backfill(files[count], folder, environment, options.actors, block)

    sides: dict[str, list[Round]] = {side: [] for side in SIDES}
    for number, side in interleaved(SIDES, options.rounds):
        first, whole = run(side, options.first), run(side, options.posts)
        sides[side].append(Round(whole, first))
        print(
            f"round {number + 1}: {side:<9} {whole.posts:,} posts, {whole.by_model:,} by the model: "
            f"{whole.core_s:.1f} core-seconds, {whole.wall_s:.1f} s; {first.posts:,} posts: {first.core_s:.1f}",
            flush=True,
        )
    return sides


def report(found: dict[str, Rates], *, judged: bool) -> tuple[dict[str, Rates], bool]:
    """Print the rates and their ratios; return these, and whether the target is reached."""
    for side in SIDES:
        whole, without = _shown(found[side]["whole"], 1), _shown(found[side]["judging"], 1)
        print(f"{side:<9} {whole} posts per core-second, {without} without the start")
    ratio = {side: compare(found, side) for side in ("classify", "at once")}
    for side, one in ratio.items():
        with_start, without = _shown(one["whole"], 2), _shown(one["judging"], 2)
        print(f"backfill / {side}: {with_start} with the start, {without} without it")
    judging = ratio["classify"]["judging"]
    if judging is None:
        print("the further posts cost less than one start differs from the next: give more --posts")
    reached = judging is not None and judging >= RATIO_MIN
    state = "reached" if reached else "MISSED"
    print(
        f"target: {RATIO_MIN} of classify without the start: "
        + (state if judged else "not judged, because no model was asked")
    )
    return ratio, reached


def main() -> int:
    """Measure all sides; exit 1 where the target is missed."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--posts", type=int, default=20_000)
    arguments.add_argument("--first", type=int, default=1_000, help="posts of the small run")
    arguments.add_argument("--rounds", type=int, default=3, help="of which the medians count")
    arguments.add_argument("--model-share", type=float, default=0.1, help="of posts for the model")
    arguments.add_argument("--actors", type=int, default=2)
    arguments.add_argument("--block-posts", type=int, default=1_000)
    arguments.add_argument("--engine", choices=("demo", "scripted"), default="demo")
    arguments.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    options = arguments.parse_args()
    adopt_orphans()
    with tempfile.TemporaryDirectory() as name:
        policies = Path(name) / "policies"
        shutil.copytree(ROOT / "stream_guard/cli/demo/policies", policies)
        (policies / SLUG / "rules.yaml").write_text(_RULES, "utf-8")
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("STREAM_GUARD_")},
            "PYTHONPATH": str(ROOT),
            "STREAM_GUARD_POLICIES__PATH": str(policies),
            "STREAM_GUARD_CASCADE__LADDER": "[]",
            "STREAM_GUARD_ENGINE__MODEL": "demo",
            "STREAM_GUARD_TELEMETRY__LOG_LEVEL": "warning",
        }
        if options.engine == "scripted":
            environment["STREAM_GUARD_ENGINE__KIND"] = "scripted"
        sides = run_sides(options, Path(name), environment)
    found = {side: rates(rounds) for side, rounds in sides.items()}
    judged = options.engine == "demo"
    ratio, reached = report(found, judged=judged)
    if options.json:
        options.json.write_text(json.dumps({"rates": found, "ratio": ratio}, indent=2) + "\n")
    return 0 if reached or not judged else 1


if __name__ == "__main__":
    sys.exit(main())
