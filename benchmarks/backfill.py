"""Compares a backfill by two actors with ``classify`` on the same file: posts per core-second, and their ratio.

    make bench-backfill ARGS="--posts 20000 --model-share 0.1 --actors 2"

A core-second is a second of processor time, of the command and all processes that it starts, so other load on the
machine matters little. Each side runs twice: on the whole file and on its first posts. ``whole`` counts everything,
with the start of one engine or of two and of Ray. ``judging`` is the difference of both runs: what further posts cost.
Most posts end in the tier ``rules``; the others go to the demo model. The target is for ``judging``, because the start
costs the same for a year of history as for a file.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import orjson
import psutil
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parent.parent
SLUG = "house-rules"
RATIO_MIN = 0.9
_POLL_S = 0.2
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


def write_posts(file: Path, count: int, model_share: float) -> None:
    """Write posts with texts of their own; this share of them no rule settles."""
    drawn = random.Random(1)  # noqa: S311 - repeated, not secret
    with file.open("wb") as out:
        for number in range(count):
            words = " ".join(drawn.choices(_WORDS, k=8))
            settled = drawn.random() >= model_share
            text = f"{words} {drawn.choice(_SETTLED)} {number}" if settled else f"{words} {number}"
            out.write(orjson.dumps({"id": f"p{number}", "text": text, "language": "en"}) + b"\n")


def measure(
    command: Sequence[str], environment: dict[str, str], output: Path
) -> tuple[float, float]:
    """Run a command; return its processor time, with all processes below it, and how long it took, in s."""
    spent: dict[tuple[int, float], float] = {}
    stop = threading.Event()
    began_s = time.monotonic()
    with output.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "stream_guard", *command], env=environment, cwd=ROOT, stdout=out
        )

        def watch() -> None:
            mine = psutil.Process(process.pid)
            while not stop.is_set():
                try:
                    for one in (mine, *mine.children(recursive=True)):
                        times = one.cpu_times()
                        spent[one.pid, one.create_time()] = times.user + times.system
                except psutil.Error:
                    continue  # it ended while we looked
                stop.wait(_POLL_S)

        watching = threading.Thread(target=watch)
        watching.start()
        code = process.wait()
        stop.set()
        watching.join()
    if code:
        raise SystemExit(f"{' '.join(command)} ended with {code}")
    return sum(spent.values()), time.monotonic() - began_s


def classify(file: Path, folder: Path, environment: dict[str, str]) -> Run:
    """Judge a file by ``classify``."""
    out = folder / "classified.jsonl"
    words = ("classify", str(file), "--policy", SLUG, "--json", "--no-studio")
    core_s, wall_s = measure(words, environment, out)
    tiers = [orjson.loads(line)["provenance"]["tier"] for line in out.read_bytes().splitlines()]
    return Run(len(tiers), tiers.count("safeguard"), core_s, wall_s)


def backfill(file: Path, folder: Path, environment: dict[str, str], actors: int, block: int) -> Run:
    """Judge a file by a backfill."""
    out = folder / "history"
    shutil.rmtree(out, ignore_errors=True)
    words = ("backfill", str(file), "--policy", SLUG, "--out", str(out), "--actors", str(actors))
    more = ("--cpus", "1", "--block-posts", str(block), "--json")
    core_s, wall_s = measure((*words, *more), environment, folder / "report.json")
    tiers = pq.read_table(out / "verdicts", columns=["tier"]).column("tier").to_pylist()
    return Run(len(tiers), tiers.count("safeguard"), core_s, wall_s)


def rates(whole: Run, small: Run) -> dict[str, float]:
    """Return posts per core-second, with and without the start."""
    posts, core_s = whole.posts - small.posts, whole.core_s - small.core_s
    return {"whole": whole.posts / whole.core_s, "judging": posts / core_s}


def main() -> int:
    """Measure both sides; exit 1 where the target is missed."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--posts", type=int, default=20_000)
    arguments.add_argument("--first", type=int, default=1_000, help="posts of the small run")
    arguments.add_argument("--model-share", type=float, default=0.1, help="of posts for the model")
    arguments.add_argument("--actors", type=int, default=2)
    arguments.add_argument("--block-posts", type=int, default=1_000)
    arguments.add_argument("--engine", choices=("demo", "scripted"), default="demo")
    arguments.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    options = arguments.parse_args()
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        policies = folder / "policies"
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
        sides: dict[str, list[Run]] = {"classify": [], "backfill": []}
        for count in (options.posts, options.first):
            file = folder / f"{count}.jsonl"
            write_posts(file, count, options.model_share)
            sides["classify"].append(classify(file, folder, environment))
            # Enough blocks for every actor to start its engine in the small run, too.
            block = min(options.block_posts, max(1, count // (4 * options.actors)))
            sides["backfill"].append(backfill(file, folder, environment, options.actors, block))
        for side, (whole, small) in sides.items():
            found[side] = rates(whole, small)
            print(
                f"{side:<9}{whole.posts:>8,} posts, {whole.by_model:,} by the model: {whole.core_s:,.1f} core-seconds, "
                f"{whole.wall_s:,.1f} s; {found[side]['whole']:,.1f} posts per core-second, "
                f"{found[side]['judging']:,.1f} without the start"
            )
    ratio = {
        name: found["backfill"][name] / found["classify"][name] for name in ("whole", "judging")
    }
    reached = ratio["judging"] >= RATIO_MIN
    print(f"ratio: {ratio['whole']:.2f} with the start, {ratio['judging']:.2f} without it")
    print(f"target: {RATIO_MIN} without the start: {'reached' if reached else 'MISSED'}")
    if options.json:
        options.json.write_text(json.dumps({"rates": found, "ratio": ratio}, indent=2) + "\n")
    return 0 if reached or options.engine == "scripted" else 1


if __name__ == "__main__":
    sys.exit(main())
