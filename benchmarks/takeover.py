"""Measures how soon a new process goes on in exactly once: ``make bench-takeover``.

A process judges posts by a judge that answers at once, over 24 partitions, while more posts come. It is stopped in
good order, or killed with its transactions open, and the next one starts. Measured is the time from that start to the
first verdict that a reader of committed records gets. The difference between both ways is what the takeover costs: a
new owner has to end the transactions of the dead one before it reads positions. Every run also checks that each post
has one verdict.

Target: a takeover costs at most 5 s, whatever ``delivery.transaction_timeout_ms`` is. Exit code 1: missed, or a post
without a verdict, or with two.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

from aiokafka import AIOKafkaConsumer

from benchmarks import traffic
from benchmarks.figures import median
from benchmarks.report import Report, Table
from benchmarks.scale import posts_of
from benchmarks.sides import Side, Sizes, add_report_options, default_model, environment, run_bench
from benchmarks.workload import write_policies
from stream_guard.testing.broker.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from stream_guard.testing import Broker

PARTITIONS: Final = 24
TAKEOVER_S_MAX: Final = 5.0
LIMIT_S: Final = 600.0
_SHARE_BEFORE: Final = 0.25
_LAST_SHARE: Final = 10
_LOOK_S: Final = 0.05
_TIMEOUTS_MS: Final = (10_000, 100_000)


class Reader:
    """Reads committed verdicts as they come.

    Attributes:
        keys: how often each content id came.
        last_s: when the last record came, by the monotonic clock.
    """

    def __init__(self) -> None:
        self.keys: Counter[bytes] = Counter()
        self.count = 0
        self.last_s = 0.0

    async def run(self, servers: str, topic: str) -> None:
        """Read until cancelled."""
        consumer = AIOKafkaConsumer(
            topic,
            bootstrap_servers=servers,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
        )
        await consumer.start()
        try:
            async for record in consumer:
                self.keys[dict(record.headers)["ce_id"]] += 1
                self.count += 1
                self.last_s = time.monotonic()
        finally:
            await consumer.stop()

    async def until(self, count: int, side: Side) -> None:
        """Return once there are so many."""
        begun_s = time.monotonic()
        while self.count < count:
            if not side.alive() or time.monotonic() - begun_s > LIMIT_S:
                message = (
                    f"{self.count} of {count} verdicts, and the process ended or took too long"
                )
                raise traffic.EndedError(message)
            await asyncio.sleep(_LOOK_S)

    async def quiet(self) -> None:
        """Return once nothing came for a second."""
        while time.monotonic() - self.last_s < 1.0:  # noqa: ASYNC110 - silence has no event
            await asyncio.sleep(_LOOK_S)


@contextlib.asynccontextmanager
async def reading(servers: str, topic: str) -> AsyncIterator[Reader]:
    """Read in the background."""
    reader = Reader()
    task = asyncio.create_task(reader.run(servers, topic))
    try:
        yield reader
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def go_on_after(
    broker: Broker,
    place: Path,
    report: Report,
    run: str,
    *,
    posts: int,
    kill: bool,
    timeout_ms: int,
) -> float:
    """Return the time from the second process's start to its first committed verdict, in s."""
    servers = broker.bootstrap_servers
    topics = await traffic.make_topics(broker, run, PARTITIONS)
    every = list(posts_of(run, posts))
    # Posts come while the first process works, so that it has transactions open whenever it is killed. The last come
    # after it has ended, so that the second one has work, however quick the first was.
    backlog, meanwhile, last = (
        every[: posts // 2],
        every[posts // 2 : -posts // _LAST_SHARE],
        every[-posts // _LAST_SHARE :],
    )
    await traffic.fill(servers, topics.posts, backlog)
    policies = place / "policies"
    (port,) = free_ports(1)
    variables = environment(
        servers,
        topics,
        policies,
        Sizes(default_model()),
        ENGINE__KIND="scripted",
        HTTP__PORT=str(port),
        DELIVERY__MODE="exactly_once",
        DELIVERY__TRANSACTION_TIMEOUT_MS=str(timeout_ms),
        KAFKA__GROUP_INSTANCE_ID="member",
    )
    words = ("stream_guard.cli.main", "run")
    async with reading(servers, topics.verdicts) as reader:
        async with Side(words, variables, place / f"{run}-1.log") as first:
            await reader.until(1, first)
            more = asyncio.create_task(traffic.fill(servers, topics.posts, meanwhile))
            await reader.until(round(posts * _SHARE_BEFORE), first)
            if not kill:
                await first.stop()
        await more
        await traffic.fill(servers, topics.posts, last)
        await reader.quiet()
        before, started_s = reader.count, time.monotonic()
        async with Side(words, variables, place / f"{run}-2.log") as second:
            await reader.until(before + 1, second)
            took_s = time.monotonic() - started_s
            await reader.until(posts, second)
            await second.stop()
        await reader.quiet()
    repeated = sum(count > 1 for count in reader.keys.values())
    if len(reader.keys) != posts or repeated:
        report.complaints.append(
            f"{run}: {len(reader.keys):,} posts of {posts:,} have a verdict, {repeated:,} have two"
        )
    return took_s


async def measure(broker: Broker, place: Path, report: Report, options: argparse.Namespace) -> None:
    """Stop and kill in turn."""
    write_policies(place / "policies", 1, 0, lambda _: 0, mixed=False)
    rows: list[tuple[str, float, float, float]] = []
    for timeout_ms in _TIMEOUTS_MS:
        took: dict[bool, list[float]] = {False: [], True: []}
        for number in range(options.rounds):
            for kill in (False, True):
                run = f"{'kill' if kill else 'stop'}-{timeout_ms}-{number}"
                took_s = await go_on_after(
                    broker,
                    place,
                    report,
                    run,
                    posts=options.posts,
                    kill=kill,
                    timeout_ms=timeout_ms,
                )
                took[kill].append(took_s)
                print(f"{run}: {took_s:.1f} s to the first committed verdict", flush=True)
        report.raw.append({"timeout_ms": timeout_ms, "stop_s": took[False], "kill_s": took[True]})
        stopped_s, killed_s = median(took[False]) or 0.0, median(took[True]) or 0.0
        worst_s = max(took[True]) - stopped_s
        rows.append((f"{timeout_ms / 1_000:g} s", stopped_s, killed_s, worst_s))
        report.aim(
            f"takeover, worst, with a transaction timeout of {timeout_ms / 1_000:g} s",
            worst_s,
            at_most=TAKEOVER_S_MAX,
        )
    columns = (
        "transaction timeout",
        "after a stop, median s",
        "after kill -9, median s",
        "takeover, worst s",
    )
    report.tables.append(
        Table(f"Start to first committed verdict, {PARTITIONS} partitions", columns, rows, 1)
    )


def main() -> int:
    """Measure; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--posts", type=int, default=60_000, help="of a run (default 60000)")
    parser.add_argument("--rounds", type=int, default=3, help="of each way (default 3)")
    add_report_options(parser)
    options = parser.parse_args()
    if options.quick:
        options.posts, options.rounds = 4_000, 1
    report = Report(
        "takeover",
        "How soon a new process goes on in exactly once, after a stop and after kill -9.",
        {"posts": options.posts, "rounds": options.rounds, "partitions": PARTITIONS},
        quick=options.quick,
    )
    return run_bench(
        report, options.output, lambda broker, place: measure(broker, place, report, options)
    )


if __name__ == "__main__":
    sys.exit(main())
