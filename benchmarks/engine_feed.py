"""Compares vLLM alone with Stream Guard on the same posts: ``make bench-engine``.

(a) offline: ``LLM.generate`` gets every prompt at once, with the same token ids, sampling parameters and grammars.
    Prompts are made and prefixes are cached before the clock starts. Answers are not read.
(b) guard: ``stream-guard run``, from posts that wait in Kafka to verdicts at the broker. The tiers before the model and
    the ladder are off.
(c) on_retry: as (b), with ``engine.constraint = on_retry``; (a), (b) and (d) hold every token to the grammar.
(d) by token: as (b), and vLLM sends each token when it is written, as it does by itself. In the others an answer is
    sent when it is whole.
(e) ngram: as (c), with ``engine.speculation = ngram``; only with ``--speculation``.

Each side is its own process. The sides run in turn, every other time in reverse; prefix caching is on in all. (a) is
timed by its own clock, the others from the first record that they read to the last verdict's time at the broker.
Prints the rates, the ratios b/a, b/d and c/b of each pair and their medians. Also prints the time until the engine is
full, from the engine's own metrics, and how many posts were asked again. Exit code 1: a post without exactly one
verdict, or a missed target.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from benchmarks import traffic
from benchmarks.figures import interleaved, median, ratios
from benchmarks.report import Report, Table
from benchmarks.sides import (
    Side,
    Sizes,
    add_options,
    environment,
    page_of,
    run_bench,
    sizes_of,
    until_full,
)
from benchmarks.workload import make_posts, write_policies
from stream_guard.judging.engine.arguments import is_cpu_build
from stream_guard.judging.families.registry import load_family
from stream_guard.settings import EngineSettings
from stream_guard.testing.broker.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.workload import Given
    from stream_guard.testing import Broker

RATIO_MIN: Final = 0.95
FREE_RATIO_MIN: Final = 1.2
"""Of on_retry over guard."""
SENT_RATIO_MIN: Final = 1.0
"""Of guard over by token."""
PARTITIONS: Final = 4
LIMIT_S: Final = 600.0
SIDES: Final = ("offline", "guard", "on_retry", "by token")
_FREE: Final = (("ENGINE__CONSTRAINT", "on_retry"),)
BOARDS: Final = 6


class How(NamedTuple):
    """How Stream Guard is run: a folder of policies (None: the benchmark's), partitions, and (setting, value)."""

    policies: Path | None = None
    partitions: int = PARTITIONS
    settings: tuple[tuple[str, str], ...] = ()


class GuardRun(NamedTuple):
    """The result of a run of Stream Guard.

    Attributes:
        seen: its verdicts, in the order of the broker's clock.
        page: its metrics, after the last verdict.
        ready_page: its metrics when it was ready: what happened while it started.
        full_ms: when the engine was full, Unix time in ms; None: never.
        looks: (Unix time in ms, requests that the engine ran).
    """

    seen: list[traffic.Seen]
    page: str
    ready_page: str
    full_ms: float | None
    looks: list[tuple[float, float]]


class Bench:
    """What all runs of this benchmark have in common."""

    def __init__(
        self, broker: Broker, place: Path, sizes: Sizes, report: Report, offline: str
    ) -> None:
        self.broker = broker
        self.place = place
        self.sizes = sizes
        self.report = report
        self.offline = offline
        self.policies = place / "policies"
        family = load_family(EngineSettings(model=str(sizes.model)))
        write_policies(
            self.policies, BOARDS, 300, lambda text: len(family.encode(text)), mixed=True
        )

    def _environment(self, topics: traffic.Topics, **more: str) -> dict[str, str]:
        servers = self.broker.bootstrap_servers
        return environment(servers, topics, self.policies, self.sizes, **more)

    async def run_offline(self, run: str, posts: list[Given]) -> dict[str, Any]:
        """Run (a); return what came of it."""
        given, result = self.place / f"{run}.jsonl", self.place / f"{run}.json"
        given.write_bytes(traffic.dump_posts(posts))
        variables = self._environment(traffic.Topics("posts", "verdicts", "dead"))
        variables["VLLM_ENABLE_V1_MULTIPROCESSING"] = "1" if self.offline == "separate" else "0"
        words = ("benchmarks.offline", str(given), str(result))
        async with Side(words, variables, self.place / f"{run}.log") as side:
            await side.until_ended(LIMIT_S)
        found: dict[str, Any] = orjson.loads(result.read_bytes())
        judged = sorted(map(tuple, found.pop("judged")))
        if judged != sorted((post.id, post.policy) for post in posts):
            self.report.complaints.append(f"{run}: {len(judged)} answers to {len(posts)} posts")
        return {"rate": len(posts) / found["seconds"], **found}

    async def guard(
        self, run: str, posts: list[Given], how: How | None = None, load: float | None = None
    ) -> GuardRun:
        """Run ``stream-guard run`` on posts until all have verdicts; wrong counts become complaints.

        Args:
            run: its name.
            posts: to judge.
            how: policies, partitions and further settings; None is as the benchmark has them.
            load: posts/s at which they are sent to it; None has all of them wait for it in Kafka.
        """
        how = how or How()
        servers = self.broker.bootstrap_servers
        topics = await traffic.make_topics(self.broker, run, how.partitions)
        if load is None:
            await traffic.fill(servers, topics.posts, posts)
        (port,) = free_ports(1)
        url = f"http://127.0.0.1:{port}"
        variables = environment(
            servers,
            topics,
            how.policies or self.policies,
            self.sizes,
            HTTP__PORT=str(port),
            **dict(how.settings),
        )
        stop = asyncio.Event()
        async with (
            Side(("stream_guard.cli.main", "run"), variables, self.place / f"{run}.log") as side,
            traffic.Watch(servers, topics[1:], how.partitions) as watch,
        ):
            await side.until_ready(f"{url}/readyz")
            ready_page = await page_of(f"{url}/metrics")
            filling = asyncio.create_task(until_full(f"{url}/metrics", self.sizes.seqs, stop))
            if load is not None:
                await traffic.offer(servers, topics.posts, posts, load)
            await watch.until(len(posts), LIMIT_S, side.alive)
            stop.set()
            full_ms, looks = await filling
            page = await page_of(f"{url}/metrics")
            await side.stop()
            there = await watch.count()
        seen = traffic.seen_of(await traffic.read(servers, topics.verdicts, how.partitions))
        self.report.complaints += traffic.complaints(run, posts, seen, there - len(seen))
        return GuardRun(seen, page, ready_page, full_ms, looks)

    async def run_guard(
        self, run: str, posts: list[Given], how: How | None = None
    ) -> dict[str, Any]:
        """Run (b), or another side where ``how`` says so; return what came of it."""
        ran = await self.guard(run, posts, how)
        seen, full_ms = ran.seen, ran.full_ms
        first_ms = min((one.consumed_ms for one in seen), default=0)
        return {
            "rate": traffic.rate_of(seen),
            "full_s": None if full_ms is None else max(0.0, full_ms - first_ms) / 1_000,
            "prompt_tokens": sum(one.prompt_tokens for one in seen),
            "cached_tokens": sum(one.cached_tokens for one in seen),
            "output_tokens": sum(one.output_tokens for one in seen),
            "tried_again": sum(one.attempts > 1 for one in seen),
            "undetermined": sum(one.undetermined for one in seen),
            "running": [(round(at_ms - first_ms), running) for at_ms, running in ran.looks],
        }


def how_of(side: str, sizes: Sizes) -> How:
    """Return how Stream Guard is run on a side."""
    if side == "on_retry":
        return How(settings=_FREE)
    if side == "ngram":
        return How(settings=(*_FREE, ("ENGINE__SPECULATION", "ngram")))
    if side == "by token":
        kind = "scheduler.Scheduler" if is_cpu_build() else "async_scheduler.AsyncScheduler"
        own = {"scheduler_cls": f"vllm.v1.core.sched.{kind}"}
        extra = orjson.dumps(orjson.loads(sizes.extra) | own).decode()
        return How(settings=(("ENGINE__EXTRA", extra),))
    return How()


async def measure(bench: Bench, posts_count: int, pairs: int, sides: Sequence[str]) -> None:
    """Run the pairs and fill the report."""
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    for number, side in interleaved(sides, pairs):
        posts = make_posts(f"pair{number}", posts_count, BOARDS, seed=number)
        name = f"{side.replace('_', '-').replace(' ', '-')}-{number}"
        if side == "offline":
            run = await bench.run_offline(name, posts)
        else:
            run = await bench.run_guard(name, posts, how_of(side, bench.sizes))
        print(f"pair {number + 1}: {side}: {run['rate'] or 0:,.1f} posts/s", flush=True)
        found[side].append(run)
        bench.report.raw.append({"pair": number, "side": side, **run})
    fill_report(bench.report, found)


def fill_report(report: Report, found: dict[str, list[dict[str, Any]]]) -> None:
    """Add the tables and targets for the runs of all sides, which are in the order of the pairs."""
    offline, guard, free, by_token = (found[side] for side in SIDES)
    shares = ratios([run["rate"] for run in guard], [run["rate"] for run in offline])
    gains = ratios([run["rate"] for run in free], [run["rate"] for run in guard])
    sent = ratios([run["rate"] for run in guard], [run["rate"] for run in by_token])
    report.tables.append(
        Table(
            "Posts/s",
            (
                *("pair", "offline", "stream guard", "ratio", "s to a full engine"),
                *("on_retry", "on_retry / stream guard", "asked again"),
                *("by token", "stream guard / by token"),
            ),
            [
                (
                    str(number + 1),
                    *(a["rate"], b["rate"], share, b["full_s"]),
                    *(c["rate"], gain, c["tried_again"], d["rate"], better),
                )
                for number, (a, b, c, d, share, gain, better) in enumerate(
                    zip(offline, guard, free, by_token, shares, gains, sent, strict=True)
                )
            ],
        )
    )
    kinds = ("prompt_tokens", "cached_tokens", "output_tokens")
    report.tables.append(
        Table(
            "Tokens",
            ("side", *kinds),
            [
                (side, *(median([run[kind] for run in runs]) for kind in kinds))
                for side, runs in found.items()
            ],
            digits=0,
        )
    )
    if "ngram" in found:
        ahead = ratios([run["rate"] for run in found["ngram"]], [run["rate"] for run in free])
        rows = [
            (str(number + 1), run["rate"], ratio)
            for number, (run, ratio) in enumerate(zip(found["ngram"], ahead, strict=True))
        ]
        columns = ("pair", "ngram, posts/s", "ngram / on_retry")
        report.tables.append(
            Table("Speculation", columns, [*rows, ("median", None, median(ahead))])
        )
    report.aim("median of guard / offline", median(shares), at_least=RATIO_MIN)
    report.aim("median of guard / by token", median(sent), at_least=SENT_RATIO_MIN)
    report.aim("median of on_retry / guard", median(gains), at_least=FREE_RATIO_MIN)
    full_s = median([run["full_s"] for run in guard])
    report.tables.append(
        Table("Filling", ("figure", "s"), [("first record to a full engine, median", full_s)])
    )


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--posts", type=int, default=2_000, help="posts of a run (default 2000)")
    parser.add_argument("--pairs", type=int, default=3, help="pairs of runs (default 3)")
    parser.add_argument(
        "--offline",
        choices=("separate", "same"),
        default="separate",
        help="whether offline's engine has a process of its own, as vLLM does by itself, or shares the caller's",
    )
    parser.add_argument(
        "--speculation", action="store_true", help="also run (d), with tokens proposed ahead"
    )
    add_options(parser)
    options = parser.parse_args(words)
    if options.quick:
        options.posts, options.pairs, options.seqs = 40, 1, 8
    return options


def main() -> int:
    """Measure; return the exit code."""
    options = parse()
    sizes = sizes_of(options)
    shown = {"posts": options.posts, "pairs": options.pairs, "offline": options.offline}
    report = Report(
        "engine-feed",
        "Stream Guard from Kafka to verdicts, against vLLM's `LLM.generate` on the same prompts.",
        shown | sizes.shown(),
        quick=options.quick,
    )

    async def work(broker: Broker, place: Path) -> None:
        bench = Bench(broker, place, sizes, report, options.offline)
        sides = (*SIDES, "ngram") if options.speculation else SIDES
        await measure(bench, options.posts, options.pairs, sides)

    return run_bench(report, options.output, work)


if __name__ == "__main__":
    sys.exit(main())
