"""Predicts how many posts one engine judges per second, and checks the prediction: ``make bench-capacity``.

    seconds of engine per post = U * prompt_token_s + G * generated_token_s
    posts/s of one process     = 1 / (share of posts that reach the model * policies of a post * seconds of engine)
    processes                  = peak posts/s / (0.7 * posts/s of one process), rounded up

U: uncached prompt tokens of a post. G: tokens that the model generates for it. Each verdict has both in its
``provenance`` (prompt_tokens - cached_tokens, output_tokens). The two costs belong to a model, a card and the engine's
settings. Two saturated runs measure them: long posts at low effort, and short posts at high effort. A third run
measures a mixture, which is compared with the prediction.

Each run is ``stream-guard run``, from posts that wait in Kafka to verdicts at the broker. Tiers before the model are
off. Target: the median of measured / predicted is within 0.85 to 1.15. Exit code 1: a missed target, or a post
without exactly one verdict.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from benchmarks.engine_feed import BOARDS, Bench
from benchmarks.figures import median
from benchmarks.report import Report, Table
from benchmarks.sides import Sizes, add_options, run_bench, sizes_of
from benchmarks.workload import EFFORTS, board_of, make_posts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.workload import Given
    from stream_guard.testing import Broker

WITHIN: Final = (0.85, 1.15)
BUSY: Final = 0.7
"""Share of its capacity at which an engine is planned to run: above it, latency grows faster than load."""
_POOL: Final = 12


class Costs(NamedTuple):
    """Seconds of engine for a prompt token that is not cached, and for a generated one."""

    prompt_token_s: float
    generated_token_s: float

    def post_s(self, uncached: float, generated: float) -> float:
        """Return the seconds of engine for a post."""
        return uncached * self.prompt_token_s + generated * self.generated_token_s


class Load(NamedTuple):
    """The result of a run: posts/s, and tokens per post."""

    rate: float
    uncached: float
    generated: float


def load_of(run: dict[str, Any], posts: int) -> Load:
    """Return a run's load. Raises ValueError if it has no rate."""
    if not run["rate"]:
        message = "a run without a rate has no load"
        raise ValueError(message)
    uncached = (run["prompt_tokens"] - run["cached_tokens"]) / posts
    return Load(run["rate"], uncached, run["output_tokens"] / posts)


def solve(one: Load, other: Load) -> Costs | None:
    """Return the costs that explain two runs; None if the runs are too similar, or a cost is negative."""
    area = one.uncached * other.generated - other.uncached * one.generated
    if abs(area) < 0.05 * max(one.uncached * other.generated, other.uncached * one.generated, 1e-9):
        return None
    prompt = (other.generated / one.rate - one.generated / other.rate) / area
    generated = (one.uncached / other.rate - other.uncached / one.rate) / area
    return Costs(prompt, generated) if prompt >= 0 and generated >= 0 else None


def workloads(number: int, count: int) -> dict[str, list[Given]]:
    """Return posts that are long and asked with low effort, short and asked with high effort, and of all kinds."""
    pool = make_posts(f"capacity{number}", _POOL * count, BOARDS, seed=number)
    pool.sort(key=lambda post: len(post.value))
    low = [post for post in pool if EFFORTS[board_of(post) % len(EFFORTS)][0] == "low"]
    high = [post for post in pool if EFFORTS[board_of(post) % len(EFFORTS)][0] == "high"]
    mixed = make_posts(f"mixed{number}", count, BOARDS, seed=number)
    return {"long, low effort": low[-count:], "short, high effort": high[:count], "mixed": mixed}


async def measure(bench: Bench, count: int, rounds: int) -> None:
    """Run all and fill the report."""
    rows: list[Sequence[str | float | None]] = []
    shares: list[float | None] = []
    for number in range(rounds):
        loads = []
        for kind, posts in workloads(number, count).items():
            name = f"{kind.replace(', ', '-').replace(' ', '-')}-{number}"
            run = await bench.run_guard(name, posts)
            loads.append(load := load_of(run, len(posts)))
            print(f"round {number + 1}: {kind}: {load.rate:,.1f} posts/s", flush=True)
            bench.report.raw.append({"round": number, "kind": kind, **run})
            rows.append((str(number + 1), kind, load.uncached, load.generated, load.rate, None))
        costs = solve(*loads[:2])
        if costs is None:
            bench.report.complaints.append(
                f"round {number + 1}: the runs do not tell the costs apart"
            )
            shares.append(None)
            continue
        predicted = 1 / costs.post_s(loads[2].uncached, loads[2].generated)
        rows[-1] = (*rows[-1][:5], predicted)
        shares.append(loads[2].rate / predicted)
        bench.report.raw.append({"round": number, **costs._asdict(), "predicted": predicted})
        name = f"Costs of round {number + 1}"
        of_costs = ("of", "microseconds of engine")
        found = [("prompt token, not cached", 1e6 * costs.prompt_token_s)]
        found.append(("generated token", 1e6 * costs.generated_token_s))
        bench.report.tables.append(Table(name, of_costs, found, digits=1))
    columns = ("round", "posts", "uncached tokens", "generated tokens", "posts/s", "predicted")
    bench.report.tables.append(Table("Predicted and measured", columns, rows, digits=1))
    share = median(shares)
    bench.report.aim("measured / predicted", share, at_least=WITHIN[0])
    bench.report.aim("measured / predicted, not above", share, at_most=WITHIN[1])


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--posts", type=int, default=800, help="posts of a run (default 800)")
    parser.add_argument("--rounds", type=int, default=3, help="of three runs each (default 3)")
    add_options(parser)
    options = parser.parse_args(words)
    if options.quick:
        options.posts, options.rounds, options.seqs = 40, 1, 8
    return options


def main() -> int:
    """Measure; return the exit code."""
    options = parse()
    sizes: Sizes = sizes_of(options)
    report = Report(
        "capacity",
        "Predict how many posts an engine judges from two runs, and compare with a third.",
        {"posts": options.posts, "rounds": options.rounds} | sizes.shown(),
        quick=options.quick,
    )

    async def work(broker: Broker, place: Path) -> None:
        await measure(Bench(broker, place, sizes, report, "same"), options.posts, options.rounds)

    return run_bench(report, options.output, work)


if __name__ == "__main__":
    sys.exit(main())
