"""Measures what grouping posts by policy saves the engine, with posts in random order: ``make bench-grouping``.

    grouped  stream-guard run with its defaults: posts of one policy are handed over together
    arrival  the same with batching.size_max 1, batching.age_max_ms 0 and polls of one record: first come, first served
    warm     polls of one record and micro-batches of one post, too: only the engine's queue prefers cached policies.
             A post waits for that up to 60 s, as long as this slow engine needs for some hundred posts
    sorted   as grouped, with posts sorted by policy before they are sent: the best order

There are 1, 4, 16 and 64 policies of 600 tokens, one partition, no cheap tiers, and a KV cache that holds few
policies beside the posts in the engine. Policies that fit in it are read once; others are read again each time. Prints
the prefix cache's hit rate (cached / prompt tokens of all verdicts), posts/s, and the share of sorting's gain that
grouping has. Also prints the longest time from reading a record to handing its post to the judge.

Targets apply if sorting gains at least 5 % in hit rate; with few policies the sides differ by chance. Grouping gains at
least half of that, in hit rate and in posts/s. The hit rate of ``warm`` is at least 0.9 of that of ``sorted``. No post
waits longer than batching.age_max_ms, as far as the histogram's buckets tell. Exit code 1: a missed target, or a post
without exactly one verdict.
"""

from __future__ import annotations

import argparse
import bisect
import sys
from typing import TYPE_CHECKING, Final, NamedTuple

from benchmarks import traffic
from benchmarks.engine_feed import Bench, How
from benchmarks.figures import gained, interleaved, median
from benchmarks.histograms import buckets_of, longest
from benchmarks.report import Report, Table
from benchmarks.sides import add_options, run_bench, sizes_of
from benchmarks.workload import by_policy, make_posts, write_policies
from stream_guard.judging.families.registry import load_family
from stream_guard.settings import BatchingSettings, EngineSettings
from stream_guard.telemetry.metrics import SECONDS_BUCKETS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from stream_guard.testing import Broker

SIDES: Final = ("grouped", "arrival", "warm", "sorted")
GAIN_MIN: Final = 0.5
WARM_MIN: Final = 0.9
_TOKENS: Final = 600
_SETTINGS: Final = {
    # One record per poll: records of one poll are handed over by policy, whatever the size of a batch.
    "arrival": (
        ("BATCHING__SIZE_MAX", "1"),
        ("BATCHING__AGE_MAX_MS", "0"),
        ("BATCHING__POLL_RECORDS_MAX", "1"),
    ),
    "warm": (
        ("BATCHING__SIZE_MAX", "1"),
        ("BATCHING__POLL_RECORDS_MAX", "1"),
        ("BATCHING__PREFIX_WAIT_FACTOR", "3000"),
    ),
}


class Run(NamedTuple):
    """Of one run: the share of prompt tokens that were cached, posts/s, and the longest wait's bound in ms."""

    hits: float
    rate: float | None
    wait_ms: float | None


async def run_side(bench: Bench, side: str, policies: int, number: int, posts_count: int) -> Run:
    """Run a side on posts in random order of so many policies."""
    name = f"{side}-{policies}-{number}"
    folder = bench.place / f"policies-{policies}"
    posts = make_posts(f"group{policies}x{number}", posts_count, policies, seed=number)
    if side == "sorted":
        posts = by_policy(posts)
    how = How(folder, 1, _SETTINGS.get(side, ()))
    ran = await bench.guard(name, posts, how)
    prompt = sum(one.prompt_tokens for one in ran.seen)
    hits = sum(one.cached_tokens for one in ran.seen) / prompt if prompt else 0.0
    waits = buckets_of(ran.page, "stream_guard_stage_seconds", stage="wait")
    wait_s = longest(waits)
    found = Run(hits, traffic.rate_of(ran.seen), None if wait_s is None else 1_000 * wait_s)
    print(
        f"{policies} policies: {side}: hit rate {hits:.3f}, {found.rate or 0:,.1f} posts/s",
        flush=True,
    )
    bench.report.raw.append(
        {"policies": policies, "side": side, "round": number, **found._asdict()}
    )
    return found


def bucket_ms(edges_ms: Sequence[float], limit_ms: float) -> float:
    """Return the upper edge of the bucket that holds a limit: a histogram cannot say more."""
    return edges_ms[min(bisect.bisect_left(edges_ms, limit_ms), len(edges_ms) - 1)]


async def measure(bench: Bench, counts: Sequence[int], posts_count: int, rounds: int) -> None:
    """Run all and fill the report."""
    family = load_family(EngineSettings(model=str(bench.sizes.model)))
    rows: list[Sequence[str | float | None]] = []
    waits_ms: list[float | None] = []
    for policies in counts:
        write_policies(
            bench.place / f"policies-{policies}",
            policies,
            _TOKENS,
            lambda text: len(family.encode(text)),
            mixed=False,
        )
        runs: dict[str, list[Run]] = {side: [] for side in SIDES}
        for number, side in interleaved(SIDES, rounds):
            runs[side].append(await run_side(bench, side, policies, number, posts_count))
        hits = {side: median([run.hits for run in found]) for side, found in runs.items()}
        rates = {side: median([run.rate for run in found]) for side, found in runs.items()}
        waits_ms += [run.wait_ms for run in runs["grouped"]]
        for side in SIDES:
            wait_ms = max((run.wait_ms or 0.0 for run in runs[side]), default=None)
            rows.append((str(policies), side, hits[side], rates[side], wait_ms))
        if aim(bench.report, f"hit rate, {policies} policies", hits):
            warm, best = hits["warm"], hits["sorted"]
            of_best = warm / best if warm is not None and best else None
            what = f"hit rate of warm, of sorted, {policies} policies"
            bench.report.aim(what, of_best, at_least=WARM_MIN)
            aim(bench.report, f"posts/s, {policies} policies", rates)
    columns = ("policies", "side", "hit rate", "posts/s", "longest wait, at most ms")
    bench.report.tables.append(Table("Grouping by policy, medians", columns, rows, digits=3))
    limit_ms = BatchingSettings().age_max_ms
    edges_ms = [1_000 * edge for edge in SECONDS_BUCKETS]
    known = [one for one in waits_ms if one is not None]
    bench.report.aim(
        f"longest wait for company, ms (limit {limit_ms}, told by buckets)",
        max(known) if len(known) == len(waits_ms) else None,
        at_most=bucket_ms(edges_ms, limit_ms),
    )


def aim(report: Report, what: str, found: dict[str, float | None]) -> bool:
    """Add a target on the share of the gain; return False, and add none, if sorting gains almost nothing."""
    grouped, arrival, best = (found[side] for side in ("grouped", "arrival", "sorted"))
    if grouped is None or arrival is None or best is None:
        report.aim(f"share of sorting's gain in {what}", None, at_least=GAIN_MIN)
        return True
    share = gained(grouped, arrival, best)
    if share is not None:
        report.aim(f"share of sorting's gain in {what}", share, at_least=GAIN_MIN)
    return share is not None


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--policies",
        nargs="+",
        type=int,
        default=[1, 4, 16, 64],
        help="counts of policies (default 1 4 16 64)",
    )
    parser.add_argument("--posts", type=int, default=500, help="posts of a run (default 500)")
    parser.add_argument("--rounds", type=int, default=1, help="of all runs (default 1)")
    add_options(parser, seqs=8, cache_mib=40)
    options = parser.parse_args(words)
    if options.quick:
        options.policies, options.posts, options.rounds = [4], 40, 1
    return options


def main() -> int:
    """Measure; return the exit code."""
    options = parse()
    sizes = sizes_of(options)
    names = ("policies", "posts", "rounds")
    report = Report(
        "grouping",
        "Posts of many policies in random order: grouped, first come first served, and sorted.",
        {name: getattr(options, name) for name in names} | sizes.shown(),
        quick=options.quick,
    )

    async def work(broker: Broker, place: Path) -> None:
        bench = Bench(broker, place, sizes, report, "same")
        await measure(bench, options.policies, options.posts, options.rounds)

    return run_bench(report, options.output, work)


if __name__ == "__main__":
    sys.exit(main())
