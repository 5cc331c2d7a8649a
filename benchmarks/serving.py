"""Stream Guard against what people build: a Kafka consumer round ``vllm serve``. ``make bench-serving``.

    guard       stream-guard run
    batch       aiokafka: take a batch, post all of it with asyncio.gather, wait for all, publish, commit
    faststream  the same by FastStream's batch subscriber
    stream      aiokafka: keep the server full over HTTP, without waiting for batches

The server runs on the same cores, with the same model and the same engine arguments; prompts are token ids, grammars
and budgets are Stream Guard's own, and the HTTP sides ask for no probabilities. Posts and reasoning are of mixed
lengths. Batches, and requests at the server, are twice what the engine runs side by side, as many as Stream Guard has.

1. Saturation: all posts wait in Kafka. Posts/s of each side, and the ratio guard/side of each round, with medians.
2. Latency: posts are sent at random gaps at shares of Stream Guard's own rate. p50 and p99 from a post's append to its
   verdict's, by the broker's clock, against the load: as curves.

Targets: 1.1 times the throughput of ``stream`` at saturation; 1.5 times that of ``batch`` and of ``faststream`` at the
same p99, which is the one that they have at the highest load that they keep up with. Exit code 1: a target missed, or
a post without exactly one verdict.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from typing import TYPE_CHECKING, Final, NamedTuple

from benchmarks import traffic
from benchmarks.curves import Curve, draw
from benchmarks.figures import (
    Point,
    interleaved,
    median,
    percentile,
    ratios,
    same_latency_ratio,
    sustained,
)
from benchmarks.report import Report, Table
from benchmarks.sides import Side, Sizes, add_options, environment, run_bench, sizes_of
from benchmarks.workload import make_posts, write_policies
from stream_guard.engine.tokenizer import load_tokenizer
from stream_guard.settings import EngineSettings
from stream_guard.testing.broker.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from benchmarks.workload import Given
    from stream_guard.testing import Broker

STREAM_RATIO_MIN: Final = 1.1
BATCH_RATIO_MIN: Final = 1.5
GUARD: Final = "guard"
HTTP: Final = ("batch", "faststream", "stream")
PARTITIONS: Final = 4
LIMIT_S: Final = 600.0
_BOARDS: Final = 6


class Running(NamedTuple):
    """A side that runs: what it reads and writes, its process, and the count of what it wrote."""

    topics: traffic.Topics
    side: Side
    watch: traffic.Watch


class Bench:
    """What all runs of this benchmark have in common."""

    def __init__(self, broker: Broker, place: Path, sizes: Sizes, report: Report) -> None:
        self.servers = broker.bootstrap_servers
        self.sizes = sizes
        self.report = report
        self._broker = broker
        self._place = place
        self._policies = place / "policies"
        tokenizer = load_tokenizer(EngineSettings(model=str(sizes.model)))
        write_policies(
            self._policies, _BOARDS, 300, lambda text: len(tokenizer.encode(text)), mixed=True
        )

    def _environment(self, topics: traffic.Topics, **more: str) -> dict[str, str]:
        return environment(self.servers, topics, self._policies, self.sizes, **more)

    @contextlib.asynccontextmanager
    async def server(self, run: str) -> AsyncIterator[str]:
        """Run ``vllm serve``; yield its address."""
        (port,) = free_ports(1)
        url = f"http://127.0.0.1:{port}"
        variables = self._environment(traffic.Topics("posts", "verdicts", "dead"))
        words = ("benchmarks.server", str(port))
        async with Side(words, variables, self._place / f"{run}-server.log") as side:
            await side.until_ready(f"{url}/health")
            yield url

    @contextlib.asynccontextmanager
    async def running(
        self, kind: str, run: str, url: str, posts: Sequence[Given]
    ) -> AsyncIterator[Running]:
        """Run a side of a kind on topics of its own, with posts that wait for it; see that it ends well.

        Args:
            kind: of the side.
            run: its name.
            url: of the server, for those that have one.
            posts: that are there before it starts.
        """
        topics = await traffic.make_topics(self._broker, run, PARTITIONS)
        await traffic.fill(self.servers, topics.posts, posts)
        (port,) = free_ports(1)
        variables = self._environment(topics, HTTP__PORT=str(port))
        words: tuple[str, ...] = ("stream_guard.cli", "run")
        if kind != GUARD:
            words = ("benchmarks.http_consumers", kind, url, str(2 * self.sizes.seqs))
        async with (
            Side(words, variables, self._place / f"{run}.log") as side,
            traffic.Watch(self.servers, topics[1:], PARTITIONS) as watch,
        ):
            if kind == GUARD:
                await side.until_ready(f"http://127.0.0.1:{port}/readyz")
            yield Running(topics, side, watch)
            await side.stop()

    async def check(
        self, run: str, topics: traffic.Topics, posts: Sequence[Given]
    ) -> list[traffic.Seen]:
        """Return the verdicts of a run that has ended; what is wrong with their counts goes into the report."""
        records = await traffic.read(self.servers, topics.verdicts, PARTITIONS)
        dead = await traffic.read(self.servers, topics.dead, PARTITIONS)
        seen = traffic.seen_of(records)
        self.report.complaints += traffic.complaints(run, posts, seen, len(dead))
        return seen


async def saturate(bench: Bench, kind: str, number: int, url: str, count: int) -> float | None:
    """Have a side judge posts that all wait for it; return posts/s."""
    run = f"{kind}-{number}"
    posts = make_posts(run, count, _BOARDS, seed=number)
    async with bench.running(kind, run, url, posts) as running:
        await running.watch.until(count, LIMIT_S, running.side.alive)
    seen = await bench.check(run, running.topics, posts)
    rate = traffic.rate_of(seen)
    print(f"round {number + 1}: {kind}: {rate or 0:,.1f} posts/s", flush=True)
    bench.report.raw.append(
        {
            "what": "saturation",
            "round": number,
            "side": kind,
            "rate": rate,
            "output_tokens": sum(one.output_tokens for one in seen),
            "undetermined": sum(one.undetermined for one in seen),
        }
    )
    return rate


async def saturations(
    bench: Bench, kinds: Sequence[str], rounds: int, count: int
) -> dict[str, list[float | None]]:
    """Run all sides, Stream Guard and the server taking turns in going first; return posts/s by side and round."""
    rates: dict[str, list[float | None]] = {kind: [] for kind in (GUARD, *kinds)}
    for number, turn in interleaved((GUARD, "http"), rounds):
        if turn == GUARD:
            rates[GUARD].append(await saturate(bench, GUARD, number, "", count))
            continue
        async with bench.server(f"round-{number}") as url:
            for kind in kinds if number % 2 == 0 else reversed(kinds):
                rates[kind].append(await saturate(bench, kind, number, url, count))
    return rates


async def curve(
    bench: Bench, kind: str, url: str, loads: Sequence[float], seconds: float
) -> list[Point]:
    """Send posts to a side at each load in turn, each after the last is done; return a point for each."""
    run = f"{kind}-curve"
    sent: list[list[Given]] = []
    every: list[Given] = []
    # One post before the clock starts: connections are made, and the group is joined.
    first = make_posts(f"{run}-first", 1, _BOARDS)
    async with bench.running(kind, run, url, first) as running:
        await running.watch.until(1, LIMIT_S, running.side.alive)
        every += first
        for number, load in enumerate(loads):
            posts = make_posts(
                f"{run}-{number}", max(10, round(load * seconds)), _BOARDS, seed=number
            )
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
    found = {GUARD: await curve(bench, GUARD, "", loads, seconds)}
    async with bench.server("curves") as url:
        for kind in kinds:
            found[kind] = await curve(bench, kind, url, loads, seconds)
    return found


def fill_report(
    report: Report, rates: dict[str, list[float | None]], points: dict[str, list[Point]]
) -> None:
    """Add tables, curves and targets."""
    shares = {kind: ratios(rates[GUARD], rates[kind]) for kind in rates if kind != GUARD}
    rows: list[tuple[str, float | None, float | None]] = [
        (kind, median(found), median(shares[kind]) if kind in shares else 1.0)
        for kind, found in rates.items()
    ]
    report.tables.append(
        Table("Saturation, medians", ("side", "posts/s", "stream guard / side"), rows)
    )
    columns = ("side", "offered posts/s", "achieved posts/s", "p50 ms", "p99 ms", "keeps up")
    report.tables.append(
        Table(
            "Latency against load, append to verdict",
            columns,
            [
                (kind, *point, "yes" if point in sustained(found) else "no")
                for kind, found in points.items()
                for point in sorted(found)
            ],
            digits=1,
        )
    )
    for name in ("p50", "p99"):
        lines = [
            Curve(kind, [(point.offered, getattr(point, f"{name}_ms")) for point in found])
            for kind, found in points.items()
        ]
        picture = draw(
            f"From append to verdict, {name}", "offered posts/s", "ms", lines, logarithmic=True
        )
        report.pictures[f"latency-{name}.svg"] = picture
    if "stream" in shares:
        report.aim("guard / stream, saturated", median(shares["stream"]), at_least=STREAM_RATIO_MIN)
    for kind, theirs in points.items():
        if kind in ("batch", "faststream"):
            ratio = same_latency_ratio(points[GUARD], theirs)
            report.aim(f"guard / {kind}, load at one p99", ratio, at_least=BATCH_RATIO_MIN)


async def measure(bench: Bench, options: argparse.Namespace) -> None:
    """Measure both parts and fill the report."""
    rates = await saturations(bench, options.sides, options.rounds, options.posts)
    rate = median(rates[GUARD])
    loads = [share * (rate or 0.0) for share in options.loads if rate]
    points = await curves(bench, options.curves, loads, options.seconds) if loads else {GUARD: []}
    fill_report(bench.report, rates, points)


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
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
        "--posts", type=int, default=800, help="posts of a run at saturation (default 800)"
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
    if options.quick:
        options.posts, options.rounds, options.seqs = 24, 1, 8
        options.loads, options.seconds = [0.3, 0.6], 3.0
    return options


def main() -> int:
    """Measure; return the exit code."""
    options = parse()
    sizes = sizes_of(options)
    names = ("sides", "curves", "posts", "rounds", "loads", "seconds")
    report = Report(
        "serving",
        "Stream Guard against consumers round `vllm serve`, on the same cores.",
        {name: getattr(options, name) for name in names} | sizes.shown(),
        quick=options.quick,
    )

    async def work(broker: Broker, place: Path) -> None:
        await measure(Bench(broker, place, sizes, report), options)

    return run_bench(report, options.output, work)


if __name__ == "__main__":
    sys.exit(main())
