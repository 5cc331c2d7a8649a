"""Measures latency at half load by stage, and the event loop's lag at saturation: ``make bench-latency``.

1. Saturation: all posts wait in Kafka. Measures posts/s and the p99 of the event loop's lag. Stream Guard measures that
   lag once a second (``stream_guard_event_loop_lag_seconds``). The start is left out.
2. Half of that rate, at random gaps. Measures p50 and p99 from a post's append to its verdict's, by the broker's clock.
   The stages are: until the record is read (fetch); Stream Guard's own work before and after the model (pipeline);
   the model; and the way to the broker (publish).

Stages come from each verdict's own times, in ms. Target: the p99 of the event loop's lag at saturation is at most
50 ms. Exit code 1: a missed target, or a post without exactly one verdict.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Final

from benchmarks import traffic
from benchmarks.engine_feed import BOARDS, Bench
from benchmarks.figures import percentile
from benchmarks.histograms import buckets_of, quantile, since
from benchmarks.report import Report, Table
from benchmarks.sides import SideError, add_options, run_bench, sizes_of
from benchmarks.workload import make_posts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.traffic import Seen
    from stream_guard.testing import Broker

LAG_MS_MAX: Final = 50
STAGES: Final = ("fetch", "pipeline", "model", "publish", "all")


def stages_of(seen: Seen) -> dict[str, float]:
    """Return a post's time by stage, in ms."""
    inside_ms = float(seen.judged_ms - seen.consumed_ms)
    model_ms = min(seen.model_ms, inside_ms)
    return {
        "fetch": float(seen.consumed_ms - seen.appended_ms),
        "pipeline": inside_ms - model_ms + (seen.published_ms - seen.judged_ms),
        "model": model_ms,
        "publish": float(seen.verdict_ms - seen.published_ms),
        "all": float(seen.verdict_ms - seen.appended_ms),
    }


def stage_table(title: str, seen: Sequence[Seen]) -> Table:
    """Return p50, p99 and mean of each stage."""
    found = [stages_of(one) for one in seen]
    rows: list[tuple[str, float | None, float | None, float | None]] = []
    for stage in STAGES:
        values = [one[stage] for one in found]
        mean = sum(values) / len(values) if values else None
        rows.append((stage, percentile(values, 0.5), percentile(values, 0.99), mean))
    return Table(title, ("stage", "p50 ms", "p99 ms", "mean ms"), rows, digits=1)


async def measure(bench: Bench, count: int, share: float, seconds: float) -> None:
    """Run both and fill the report. Raises SideError where nothing was judged at saturation."""
    posts = make_posts("full", count, BOARDS)
    full = await bench.guard("full", posts)
    rate = traffic.rate_of(full.seen)
    if rate is None:
        message = "nothing was judged at saturation, so that there is no half of it"
        raise SideError(message)
    name = "stream_guard_event_loop_lag_seconds"
    lag = since(buckets_of(full.ready_page, name), buckets_of(full.page, name))
    lag_s = quantile(lag, 0.99)
    lag_ms = None if lag_s is None else 1_000 * lag_s
    print(f"saturated: {rate:,.1f} posts/s", flush=True)
    bench.report.raw.append({"what": "saturated", "rate": rate, "loop_lag_buckets": lag})
    load = share * rate
    posts = make_posts("part", max(10, round(load * seconds)), BOARDS, seed=1)
    part = await bench.guard("part", posts, load=load)
    bench.report.raw.append(
        {"what": "part", "load": load, "posts": [stages_of(one) for one in part.seen]}
    )
    offered = traffic.flow_of([one.appended_ms for one in part.seen])
    looks = lag[-1][1] if lag else 0.0
    rows = [
        ("posts/s at saturation", rate),
        ("posts/s offered then", offered),
        ("event loop's lag at saturation, p99 ms", lag_ms),
        ("times that it was looked at", looks),
    ]
    bench.report.tables += [
        Table("Loads", ("figure", "value"), rows, digits=1),
        stage_table(f"From append to verdict at {share:.0%} of saturation", part.seen),
    ]
    bench.report.aim("event loop's lag at saturation, p99 ms", lag_ms, at_most=LAG_MS_MAX)


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--posts", type=int, default=2_000, help="posts of the saturated run (default 2000)"
    )
    parser.add_argument(
        "--share", type=float, default=0.5, help="of that run's rate, as the load (default 0.5)"
    )
    parser.add_argument(
        "--seconds", type=float, default=40, help="of sending at that load (default 40)"
    )
    add_options(parser)
    options = parser.parse_args(words)
    if options.quick:
        options.posts, options.seconds, options.seqs = 60, 5.0, 8
    return options


def main() -> int:
    """Measure; return the exit code."""
    options = parse()
    sizes = sizes_of(options)
    names = ("posts", "share", "seconds")
    report = Report(
        "latency",
        "From append to verdict at part of the load that saturates, by stage.",
        {name: getattr(options, name) for name in names} | sizes.shown(),
        quick=options.quick,
    )

    async def work(broker: Broker, place: Path) -> None:
        bench = Bench(broker, place, sizes, report, "same")
        await measure(bench, options.posts, options.share, options.seconds)

    return run_bench(report, options.output, work)


if __name__ == "__main__":
    sys.exit(main())
