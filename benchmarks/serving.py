"""Compares Stream Guard with Kafka consumers of ``vllm serve``: ``make bench-serving``.

    guard       stream-guard run
    batch       aiokafka: take a batch, post all of it with asyncio.gather, wait for all, publish, commit
    faststream  the same by FastStream's batch subscriber
    stream      aiokafka: keep the server full over HTTP, without waiting for batches

The server runs on the same cores, with the same model and the same engine arguments. Prompts are token ids; grammars
and budgets are Stream Guard's own. All sides ask for the tokens' probabilities, from which a verdict's confidence is
made. Posts and reasoning have mixed lengths. Batches, and requests at the server, are twice what the engine runs in
parallel, as in Stream Guard.

1. Saturation: all posts wait in Kafka. Prints posts/s of each side, the ratio guard/side of each round with medians,
   and the CPU time per post in the engine and before it (the server's front end and the consumer together).
2. Latency: posts are sent at random gaps, at shares of Stream Guard's own rate. Prints p50 and p99 from a post's append
   to its verdict's, by the broker's clock, as curves over the load.

``--workload short`` gives the engine little to do per post, with a model of random weights, so that work before the
engine weighs more. It measures saturation alone.

Targets: 1.1 times the throughput of ``stream`` at saturation, and 1.5 times the load of ``batch`` at the same p99. That
p99 is Stream Guard's own at 0.7 of its saturated rate. Exit code 1: a missed target, or a post without exactly one
verdict.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from benchmarks import traffic
from benchmarks.figures import (
    Point,
    interleaved,
    median,
    percentile,
)
from benchmarks.report import Report
from benchmarks.serving_report import (
    GUARD,
    PLANNED_SHARE,
    Saturation,
    fill_curves,
    fill_saturation,
)
from benchmarks.sides import (
    Side,
    Sizes,
    add_options,
    default_model,
    environment,
    run_bench,
    sizes_of,
)
from benchmarks.workload import WORKLOADS, make_posts, write_policies
from stream_guard.judging.families.registry import load_family
from stream_guard.settings import EngineSettings
from stream_guard.testing.broker.ports import free_ports
from stream_guard.testing.random_model import make_random_model

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from benchmarks.workload import Given
    from stream_guard.testing import Broker

HTTP: Final = ("batch", "faststream", "stream")
PARTITIONS: Final = 4
LIMIT_S: Final = 600.0
CURVE_POSTS_MIN: Final = 150
"""Posts at each load: a p99 of fewer would be one post's."""
_BOARDS: Final = 6


class Running(NamedTuple):
    """A running side: its topics, its process, and the count of records that it wrote."""

    topics: traffic.Topics
    side: Side
    watch: traffic.Watch


class Server(NamedTuple):
    """``vllm serve`` as it runs, and its address."""

    side: Side
    url: str


class Bench:
    """What all runs of this benchmark have in common."""

    def __init__(
        self, broker: Broker, place: Path, sizes: Sizes, workload: str, report: Report
    ) -> None:
        self.servers = broker.bootstrap_servers
        self.sizes = sizes
        self.report = report
        self._broker = broker
        self._place = place
        self._policies = place / "policies"
        family = load_family(EngineSettings(model=str(sizes.model)))
        write_policies(
            self._policies,
            _BOARDS,
            WORKLOADS[workload].policy_tokens,
            lambda text: len(family.encode(text)),
            mixed=True,
            efforts=WORKLOADS[workload].efforts,
        )

    def _environment(self, topics: traffic.Topics, **more: str) -> dict[str, str]:
        return environment(self.servers, topics, self._policies, self.sizes, **more)

    @contextlib.asynccontextmanager
    async def server(self, run: str) -> AsyncIterator[Server]:
        """Run ``vllm serve``."""
        (port,) = free_ports(1)
        url = f"http://127.0.0.1:{port}"
        variables = self._environment(traffic.Topics("posts", "verdicts", "dead"))
        words = ("benchmarks.server", str(port))
        async with Side(words, variables, self._place / f"{run}-server.log") as side:
            await side.until_ready(f"{url}/health")
            yield Server(side, url)

    @contextlib.asynccontextmanager
    async def running(
        self, kind: str, run: str, server: Server | None, posts: Sequence[Given]
    ) -> AsyncIterator[Running]:
        """Run a side of a kind on its own topics, with posts that wait for it; check its exit.

        Args:
            kind: of the side.
            run: its name.
            server: for the sides that use one.
            posts: that are there before it starts.
        """
        topics = await traffic.make_topics(self._broker, run, PARTITIONS)
        await traffic.fill(self.servers, topics.posts, posts)
        (port,) = free_ports(1)
        variables = self._environment(topics, HTTP__PORT=str(port))
        words: tuple[str, ...] = ("stream_guard.cli.main", "run")
        if server is not None:
            words = ("benchmarks.http_consumers", kind, server.url, str(2 * self.sizes.seqs))
        async with (
            Side(words, variables, self._place / f"{run}.log") as side,
            traffic.Watch(self.servers, topics[1:], PARTITIONS) as watch,
        ):
            if server is None:
                await side.until_ready(f"http://127.0.0.1:{port}/readyz")
            yield Running(topics, side, watch)
            await side.stop()

    async def check(
        self, run: str, topics: traffic.Topics, posts: Sequence[Given]
    ) -> list[traffic.Seen]:
        """Return the verdicts of a finished run; wrong counts go into the report."""
        records = await traffic.read(self.servers, topics.verdicts, PARTITIONS)
        dead = await traffic.read(self.servers, topics.dead, PARTITIONS)
        seen = traffic.seen_of(records)
        self.report.complaints += traffic.complaints(run, posts, seen, len(dead))
        return seen


async def saturate(
    bench: Bench, kind: str, number: int, server: Server | None, count: int
) -> Saturation:
    """Have a side judge posts that all wait for it."""
    run = f"{kind}-{number}"
    posts = make_posts(run, count, _BOARDS, seed=number)
    async with bench.running(kind, run, server, posts) as running:
        sides = [running.side, *([server.side] if server else [])]
        # From the first verdict on: the cost of the start does not belong to a post.
        await running.watch.until(1, LIMIT_S, running.side.alive)
        before = [side.cpu_s() for side in sides]
        seen_before = await running.watch.count()
        await running.watch.until(count, LIMIT_S, running.side.alive)
        after = [side.cpu_s() for side in sides]
    judged = max(1, count - seen_before)
    front_ms, engine_ms = (
        sum(new[part] - old[part] for new, old in zip(after, before, strict=True)) * 1_000 / judged
        for part in (0, 1)
    )
    seen = await bench.check(run, running.topics, posts)
    found = Saturation(traffic.rate_of(seen), engine_ms, front_ms)
    print(
        f"round {number + 1}: {kind}: {found.rate or 0:,.1f} posts/s; of CPU a post, "
        f"{engine_ms:.1f} ms in the engine and {front_ms:.1f} ms before it",
        flush=True,
    )
    bench.report.raw.append(
        {
            "what": "saturation",
            "round": number,
            "side": kind,
            **found._asdict(),
            "output_tokens": sum(one.output_tokens for one in seen),
            "undetermined": sum(one.undetermined for one in seen),
        }
    )
    return found


async def saturations(
    bench: Bench, kinds: Sequence[str], rounds: int, count: int
) -> dict[str, list[Saturation]]:
    """Run all sides, Stream Guard and the server taking turns in going first; return each side's rounds."""
    rates: dict[str, list[Saturation]] = {kind: [] for kind in (GUARD, *kinds)}
    for number, turn in interleaved((GUARD, "http"), rounds):
        if turn == GUARD:
            rates[GUARD].append(await saturate(bench, GUARD, number, None, count))
            continue
        async with bench.server(f"round-{number}") as server:
            for kind in kinds if number % 2 == 0 else reversed(kinds):
                rates[kind].append(await saturate(bench, kind, number, server, count))
    return rates


async def curve(
    bench: Bench, kind: str, server: Server | None, loads: Sequence[float], seconds: float
) -> list[Point]:
    """Send posts to a side at each load in turn, each after the last is done; return a point for each."""
    run = f"{kind}-curve"
    sent: list[list[Given]] = []
    every: list[Given] = []
    # One post before the clock starts: connections are made, and the group is joined.
    first = make_posts(f"{run}-first", 1, _BOARDS)
    async with bench.running(kind, run, server, first) as running:
        await running.watch.until(1, LIMIT_S, running.side.alive)
        every += first
        for number, load in enumerate(loads):
            count = max(CURVE_POSTS_MIN if seconds else 10, round(load * seconds))
            posts = make_posts(f"{run}-{number}", count, _BOARDS, seed=number)
            await traffic.offer(bench.servers, running.topics.posts, posts, load, seed=number)
            every += posts
            sent.append(posts)
            await running.watch.until(len(every), LIMIT_S, running.side.alive)
    seen = {one.post: one for one in await bench.check(run, running.topics, every)}
    points = [point_of([seen[post.id] for post in posts if post.id in seen]) for posts in sent]
    for load, point in zip(loads, points, strict=True):
        bench.report.raw.append(
            {"what": "latency", "side": kind, "wanted": load, **point._asdict()}
        )
        print(f"{kind}: {point.offered:,.1f} posts/s: p99 {point.p99_ms:,.0f} ms", flush=True)
    return points


def point_of(seen: Sequence[traffic.Seen]) -> Point:
    """Return the point of a curve that posts make, by the broker's clock at both ends."""
    waits_ms = [float(one.verdict_ms - one.appended_ms) for one in seen]
    return Point(
        offered=traffic.flow_of([one.appended_ms for one in seen]),
        achieved=traffic.flow_of([one.verdict_ms for one in seen]),
        p50_ms=percentile(waits_ms, 0.5) or 0.0,
        p99_ms=percentile(waits_ms, 0.99) or 0.0,
    )


async def curves(
    bench: Bench, kinds: Sequence[str], loads: Sequence[float], seconds: float
) -> dict[str, list[Point]]:
    """Return each side's points."""
    found = {GUARD: await curve(bench, GUARD, None, loads, seconds)}
    async with bench.server("curves") as server:
        for kind in kinds:
            found[kind] = await curve(bench, kind, server, loads, seconds)
    return found


async def measure(bench: Bench, options: argparse.Namespace) -> None:
    """Measure both parts and fill the report."""
    found = await saturations(bench, options.sides, options.rounds, options.posts)
    fill_saturation(bench.report, found)
    rate = median([one.rate for one in found[GUARD]])
    if rate and options.loads:
        loads = [share * rate for share in options.loads]
        points = await curves(bench, options.curves, loads, options.seconds)
        fill_curves(bench.report, points, PLANNED_SHARE * rate)


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--workload",
        choices=tuple(WORKLOADS),
        default="reasoning",
        help="what the engine does for each post (default reasoning)",
    )
    parser.add_argument(
        "--sides",
        nargs="*",
        choices=HTTP,
        default=list(HTTP),
        help="what to compare with at saturation (default: all)",
    )
    parser.add_argument(
        "--curves",
        nargs="*",
        choices=HTTP,
        default=["batch"],
        help="whose latency to draw beside Stream Guard's (default batch; faststream waits alike)",
    )
    parser.add_argument(
        "--posts", type=int, default=600, help="posts of a run at saturation (default 600)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="rounds at saturation (default 3)")
    parser.add_argument(
        "--loads",
        nargs="*",
        type=float,
        default=[0.2, 0.35, 0.5, 0.65, 0.8, 0.9],
        help="shares of Stream Guard's saturated rate (default 0.2 0.35 0.5 0.65 0.8 0.9)",
    )
    parser.add_argument(
        "--seconds", type=float, default=12, help="of sending at each load (default 12)"
    )
    add_options(parser)
    options = parser.parse_args(words)
    if options.workload == "short":
        options.loads = []
    if options.quick:
        options.posts, options.rounds, options.seqs = 24, 1, 8
        options.loads, options.seconds = options.loads and [0.3, 0.9], 0.0
    return options


def main() -> int:
    """Measure; return the exit code."""
    options = parse()
    sizes = sizes_of(options)
    names = ("workload", "sides", "curves", "posts", "rounds", "loads", "seconds")
    report = Report(
        "serving",
        "Stream Guard against consumers round `vllm serve`, on the same cores.",
        {name: getattr(options, name) for name in names} | sizes.shown(),
        quick=options.quick,
    )

    async def work(broker: Broker, place: Path) -> None:
        used = replace(sizes, rationale_tokens=WORKLOADS[options.workload].rationale_tokens)
        if options.workload == "short" and sizes.model == default_model():
            used = replace(used, model=place / "random-model")
            make_random_model(used.model)
        await measure(Bench(broker, place, used, options.workload, report), options)

    return run_bench(report, options.output, work)


if __name__ == "__main__":
    sys.exit(main())
