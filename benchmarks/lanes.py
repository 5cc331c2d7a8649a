"""Measures lanes and tenants: ``make bench-lanes``.

1. Simulation, with a manual clock and by seed: a thousand histories each of lanes above the engine's rate, of tenants
   at saturation, and of a flood by one tenant that then sends a hundred times as much. Prints how close the worst came
   to the bounds of docs/explanation/lanes.md, Jain's index, and the p99 of the others.
2. Cost: microseconds of the queue for a request, without lanes and with four lanes and a thousand tenants; and what is
   kept of a million tenants.
3. The pipeline alone, as in ``make bench-pipeline``: without lanes, with four lanes and a thousand tenants, and with
   those and the engine's queue before the judge that answers at once. Prints the rates and their ratios to the first.
4. A flood on a real broker and the real engine with the demo model, without lanes and with them: p50 and p99 of the
   others from append to verdict, by the broker's clock.

Targets: all bounds hold; Jain's index is at least 0.95; a flood raises the others' p99 by at most 20 %; the pipeline
with lanes does at least 0.9 of that without; on the real engine, lanes at least halve the others' p99 under a flood.
Exit code 1: a missed target, or a post without exactly one verdict.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
import tracemalloc
import uuid
from concurrent.futures import ProcessPoolExecutor
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from benchmarks import lanes_flood, lanes_simulation, pipeline
from benchmarks.queued_judge import QueuedJudge
from benchmarks.report import ROOT, Report, Table, finish
from benchmarks.sides import add_options, run_bench, sizes_of
from stream_guard.judging.engine.fair_waiting import FairWaiting
from stream_guard.judging.engine.waiting import FirstComeFirstServed
from stream_guard.judging.lanes.quotas import TENANTS_MAX, Quotas
from stream_guard.policies.lanes import Lane, Quota

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from stream_guard.testing import Broker

RATIO_MIN: Final = 0.9
PARTS: Final = ("simulation", "cost", "pipeline", "flood")
SIDES: Final = ("off", "lanes", "queue")
_TENANTS: Final = 1_000
_SEEN: Final = 1_000_000
_ROUTES: Final = """
default: [dangerous-content]
lanes:
  - {name: first, when: {tenant: "author-1*"}, weight: 4, goal_s: 10}
  - {name: second, when: {tenant: "author-2*"}, weight: 2, goal_s: 30}
  - {name: third, when: {tenant: "author-3*"}, goal_s: 60}
  - {name: others, quota: {tokens_per_s: 1000000, burst_tokens: 1000000}}
"""


def simulate(report: Report, histories: int) -> None:
    """Serve so many histories of each kind, on all processors."""
    with ProcessPoolExecutor() as pool:
        seeds = range(histories)
        watched = [*pool.map(lanes_simulation.lanes_history, seeds, chunksize=8)]
        jain = [*pool.map(lanes_simulation.saturated_history, seeds, chunksize=8)]
        floods = [*pool.map(lanes_simulation.flood_history, seeds, chunksize=8)]
    ratios = sorted(after / before for before, after in floods)
    gap, wait = (max(getattr(one, name) for one in watched) for name in ("gap", "wait"))
    wrong = sum(one.wrong_class for one in watched)
    rows = [
        ("worst difference of two lanes' shares, of its bound", gap),
        ("longest wait of a lane with work, of its bound", wait),
        ("requests of backfill that entered while live waited", float(wrong)),
        ("Jain's index at saturation, least", min(jain)),
        ("Jain's index at saturation, median", statistics.median(jain)),
        ("p99 of others under a flood, median multiple", statistics.median(ratios)),
        ("p99 of others under a flood, largest multiple", ratios[-1]),
    ]
    report.tables.append(
        Table(f"{histories} histories of each kind", ("figure", "value"), rows, digits=3)
    )
    report.raw.append({"what": "simulation", "jain": jain, "floods": floods})
    report.aim("difference of shares, of its bound", gap, at_most=1)
    report.aim("wait of a lane with work, of its bound", wait, at_most=1)
    report.aim("backfill before live", float(wrong), at_most=0)
    report.aim("Jain's index, least", min(jain), at_least=lanes_simulation.JAIN_MIN)
    report.aim(
        "p99 under a flood, largest multiple", ratios[-1], at_most=lanes_simulation.FLOOD_P99_MAX
    )


def _request(number: int, lane: Lane | None, tenants: int) -> Any:
    post = SimpleNamespace(tenant=f"tenant-{number % tenants}")
    return SimpleNamespace(
        request=SimpleNamespace(id=str(number), lane=lane, post=post, tokens=200)
    )


def queue_us(lanes: Sequence[Lane | None], requests: int) -> float:
    """Return the microseconds of a request in the queue, with a thousand tenants and a thousand waiting."""
    made = [_request(number, lanes[number % len(lanes)], _TENANTS) for number in range(requests)]
    queue: FairWaiting[Any] = FairWaiting(FirstComeFirstServed)
    queue.add(made[:_TENANTS], 0)
    began_s = time.perf_counter()
    for at in range(_TENANTS, requests, 50):
        coming = made[at : at + 50]
        queue.add(coming, 0)
        for _ in coming:
            queue.next(0)
    return (time.perf_counter() - began_s) / (requests - _TENANTS) * 1e6


def seen_bytes(tenants: int) -> tuple[int, int, float]:
    """Show a queue and quotas so many tenants; return the queues and buckets kept, and their bytes."""
    queue: FairWaiting[Any] = FairWaiting(FirstComeFirstServed)
    quotas, quota, lane = Quotas(), Quota(1, 10), Lane("all")
    tracemalloc.start()
    for number in range(tenants):
        queue.add((_request(number, lane, tenants),), number / 1_000)
        quotas.take(str(number), quota, 5, number / 1_000)
        if number >= 5 * _TENANTS:
            queue.next(number / 1_000)
    kept = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return queue.queues(), len(quotas), kept / 2**20


def cost(report: Report, requests: int, seen: int) -> None:
    """Measure the queue's cost and what it keeps."""
    lanes = [Lane(f"lane-{number}", weight=1 + number) for number in range(4)]
    queues, buckets, mib = seen_bytes(seen)
    rows = [
        ("queue of one request without lanes, us", queue_us([None], requests)),
        ("the same with four lanes and 1,000 tenants, us", queue_us(lanes, requests)),
        (f"queues kept after {seen:,} tenants", float(queues)),
        (f"quotas kept after {seen:,} tenants", float(buckets)),
        ("peak memory meanwhile with 5,000 waiting, MiB", mib),
    ]
    report.tables.append(Table("Cost", ("figure", "value"), rows, digits=1))
    report.aim("queues kept", float(queues), at_most=3 * 1_024)
    report.aim("quotas kept", float(buckets), at_most=TENANTS_MAX)


def _child(side: str, bootstrap: str, count: int, topics: list[str]) -> None:
    import uvloop

    settings = pipeline.settings_of(bootstrap, *topics)
    post = settings.post.model_copy(update={"tenant": "/author"})
    settings = settings.model_copy(update={"post": post})
    if side != "off":
        (settings.policies.path / "routes.yaml").write_text(_ROUTES, encoding="utf-8")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        judge = QueuedJudge() if side == "queue" else None
        rate = runner.run(pipeline.guard(settings, count, judge=judge))
    sys.stdout.write(json.dumps({"rate": rate}) + "\n")


async def _measure(broker: Broker, side: str, count: int, source: str) -> dict[str, float]:
    sink, dead = f"{side}-{uuid.uuid4().hex}", f"dead-{uuid.uuid4().hex}"
    await pipeline.fill(broker.bootstrap_servers, [sink, dead], dead, 0)
    words = ["-m", "benchmarks.lanes", "--child", side, "--count", str(count)]
    words += ["--bootstrap", broker.bootstrap_servers, "--topics", json.dumps([source, sink, dead])]
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, *words],
        check=True,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=600,
        text=True,
    )
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    result["verdicts"] = (
        await pipeline.count_of(broker.bootstrap_servers, sink) - pipeline.PARTITIONS
    )
    return result


async def compare(report: Report, broker: Broker, count: int, rounds: int) -> None:
    """Run the pipeline without lanes, with them, and with them and the engine's queue, in rounds."""
    source = f"bench-{uuid.uuid4().hex}"
    await pipeline.fill(broker.bootstrap_servers, [source], source, count)
    rows: list[tuple[str, float, float, float, float, float]] = []
    for number in range(1, rounds + 1):
        found = {side: await _measure(broker, side, count, source) for side in SIDES}
        for side, one in found.items():
            if one["verdicts"] != count:
                report.complaints.append(f"{side}: {one['verdicts']:.0f} verdicts on {count} posts")
        off, lanes, queue = (found[side]["rate"] for side in SIDES)
        rows.append((str(number), off, lanes, queue, lanes / off, queue / off))
        report.raw.append({"what": "pipeline", "round": number, **found})
        print(
            f"round {number}: off {off:,.0f}/s, lanes {lanes:,.0f}/s, with the queue {queue:,.0f}/s",
            flush=True,
        )
    columns = (
        *("round", "posts/s without lanes", "with four lanes and 1,000 tenants"),
        *("and the engine's queue", "lanes / without", "queue / without"),
    )
    report.tables.append(Table("The pipeline alone", columns, rows))
    lanes_ratio = statistics.median(row[4] for row in rows)
    queue_ratio = statistics.median(row[5] for row in rows)
    report.aim("posts/s with lanes / without", lanes_ratio, at_least=RATIO_MIN)
    print(f"median with the queue / without: {queue_ratio:.2f}", flush=True)


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--histories", type=int, default=1_000, help="of each kind (default 1000)")
    parser.add_argument(
        "--count", type=int, default=120_000, help="posts of a run (default 120000)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="of the pipeline's sides (default 5)")
    parser.add_argument(
        "--flood",
        type=int,
        default=300,
        help="posts of the others in the flood on a real engine (default 300)",
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=PARTS,
        help="a part alone; may be repeated (default all)",
    )
    parser.add_argument("--child", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--bootstrap", help=argparse.SUPPRESS)
    parser.add_argument("--topics", type=json.loads, default=[], help=argparse.SUPPRESS)
    add_options(parser, seqs=8)
    options = parser.parse_args(words)
    if options.quick:
        options.histories, options.count, options.rounds, options.flood = 8, 2_000, 1, 20
    return options


def main() -> int:
    """Measure; return the exit code."""
    options = parse()
    if options.child:
        _child(options.child, options.bootstrap, options.count, options.topics)
        return 0
    sizes = sizes_of(options)
    names = ("histories", "count", "rounds", "flood")
    report = Report(
        "lanes",
        "Lanes and tenants: bounds by simulation, cost, and a flood on a real broker and engine.",
        {name: getattr(options, name) for name in names} | sizes.shown(),
        quick=options.quick,
    )
    parts = options.only or PARTS
    if "simulation" in parts:
        simulate(report, options.histories)
    if "cost" in parts:
        cost(report, 20_000 if options.quick else 200_000, _SEEN // (50 if options.quick else 1))
    if not {"pipeline", "flood"} & {*parts}:
        return finish(report, options.output)

    async def work(broker: Broker, place: Path) -> None:
        if "pipeline" in parts:
            await compare(report, broker, options.count, options.rounds)
        if "flood" in parts:
            await lanes_flood.measure(
                report, broker, place, sizes, options.flood, 20 if options.quick else 400
            )

    return run_bench(report, options.output, work)


if __name__ == "__main__":
    sys.exit(main())
