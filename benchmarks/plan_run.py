"""Holds the simulation of ``make plan`` against three real replicas: ``make bench-plan``.

Three processes of the real program read one group's topic on a real broker. Their judge takes a known time for each
post, so their capacity is known. Posts come at a steady rate. First one replica is restarted: that measures how long a
stop, a start and a rebalance take here. From these three figures the simulation predicts a rolling update of all
three. Then the update is run. Compared are the highest backlog, the time until the backlog is gone, and the two curves.

Targets: predicted over measured is within 0.6 to 1.6 for the highest backlog and for the time, and the curves differ on
average by at most a quarter of the highest backlog. Exit code 1: a missed target, or a post without a verdict.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import time
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from aiokafka import AIOKafkaProducer

from benchmarks import traffic
from benchmarks.curves import Curve, draw
from benchmarks.report import Report, Table
from benchmarks.rolling import STEP_S, Group, Rolled, recovery_s, simulate
from benchmarks.scale import posts_of
from benchmarks.sides import Side, Sizes, add_report_options, default_model, environment, run_bench
from benchmarks.workload import write_policies
from stream_guard.testing.broker.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from stream_guard.testing import Broker

REPLICAS: Final = 3
PARTITIONS: Final = 6
WITHIN: Final = (0.6, 1.6)
DIFFERENCE_MAX: Final = 0.25
_FEED_S: Final = 0.05
_CALM: Final = 0.5
"""Seconds of arrivals that may wait in a calm group."""
_LIMIT_S: Final = 300.0


class Overheads(NamedTuple):
    """How long a stop, a start and a rebalance take, as measured, in s."""

    stop_s: float
    start_s: float
    rebalance_s: float


class Feed:
    """Sends posts at a steady rate while the context is open.

    Attributes:
        sent: how many so far.
    """

    def __init__(self, bootstrap: str, topic: str, per_s: float) -> None:
        self.sent = 0
        self._topic = topic
        self._per_s = per_s
        self._producer = AIOKafkaProducer(bootstrap_servers=bootstrap, linger_ms=5)
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._producer.start()
        self._task = asyncio.create_task(self._send())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.end()
        await self._producer.stop()

    async def end(self) -> None:
        """Send no more, and return when the broker has all."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
            await self._producer.flush()

    async def _send(self) -> None:
        posts = posts_of("plan", 10_000_000)
        began_s = time.monotonic()
        while True:
            due = int((time.monotonic() - began_s) * self._per_s)
            while self.sent < due:
                await self._producer.send(
                    self._topic, next(posts).value, partition=self.sent % PARTITIONS
                )
                self.sent += 1
            await asyncio.sleep(_FEED_S)


class Backlog:
    """Notes every :data:`STEP_S` how many posts have no verdict yet.

    Attributes:
        looks: (s on the monotonic clock, posts that wait, verdicts).
    """

    def __init__(self, watch: traffic.Watch, feed: Feed) -> None:
        self.looks: list[tuple[float, int, int]] = []
        self._watch = watch
        self._feed = feed

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            verdicts = await self._watch.count()
            self.looks.append((time.monotonic(), self._feed.sent - verdicts, verdicts))
            await asyncio.sleep(STEP_S)

    def since(self, from_s: float) -> list[tuple[float, float]]:
        """Return the curve from a moment on, whose seconds count from there."""
        return [
            (at_s - from_s, float(waiting)) for at_s, waiting, _ in self.looks if at_s >= from_s
        ]

    async def calm(self, per_s: float, from_s: float, stays_s: float = 3.0) -> None:
        """Return once almost nothing has waited for some seconds; raises TimeoutError."""
        async with asyncio.timeout(_LIMIT_S):
            while True:
                await asyncio.sleep(STEP_S)
                last = [w for at_s, w, _ in self.looks if at_s > time.monotonic() - stays_s]
                if time.monotonic() - from_s > stays_s and max(last) <= max(20, _CALM * per_s):
                    return

    def pause_s(self, from_s: float, to_s: float) -> float:
        """Return the longest time without a new verdict between two moments."""
        looks = [each for each in self.looks if from_s <= each[0] <= to_s]
        longest, since_s, seen = 0.0, from_s, -1
        for at_s, _, verdicts in looks:
            if verdicts != seen:
                longest = max(longest, at_s - since_s)
                since_s, seen = at_s, verdicts
        return longest


class Replicas:
    """The three processes, each with a port of its own."""

    def __init__(self, variables: dict[str, str], place: Path) -> None:
        self._variables = variables
        self._place = place
        self._ports = free_ports(REPLICAS)
        self._open: list[contextlib.AsyncExitStack] = []
        self._sides: list[Side] = []
        self._starts = 0

    async def start(self, number: int) -> float:
        """Start one; return after how many s it is ready."""
        self._starts += 1
        began_s = time.monotonic()
        variables = {
            **self._variables,
            "STREAM_GUARD_HTTP__PORT": str(self._ports[number]),
        }
        side = Side(("benchmarks.service_app",), variables, self._place / f"{self._starts}.log")
        stack = contextlib.AsyncExitStack()
        await stack.enter_async_context(side)
        if number < len(self._sides):
            self._sides[number], self._open[number] = side, stack
        else:
            self._sides.append(side)
            self._open.append(stack)
        await side.until_ready(f"http://127.0.0.1:{self._ports[number]}/readyz")
        return time.monotonic() - began_s

    async def stop(self, number: int) -> float:
        """Stop one in good order; return after how many s it had ended."""
        began_s = time.monotonic()
        await self._sides[number].stop()
        await self._open[number].aclose()
        return time.monotonic() - began_s

    async def close(self) -> None:
        """End all."""
        for stack in self._open:
            await stack.aclose()


def compare(
    predicted: Rolled, measured: Sequence[tuple[float, float]]
) -> tuple[float | None, float | None, float | None]:
    """Return predicted / measured of the highest backlog and of the recovery, and how far the curves are apart.

    The last is the mean of the absolute differences over the highest measured backlog.
    """
    most = max((waiting for _, waiting in measured), default=0.0)
    recovered = recovery_s(measured)
    if not most or not recovered:
        return None, None, None
    lookup = dict(predicted.curve)
    apart = [
        abs(waiting - lookup.get(round(at_s / STEP_S) * STEP_S, 0.0)) for at_s, waiting in measured
    ]
    foreseen = predicted.recovery_s
    return (
        predicted.backlog_max / most,
        None if foreseen is None else foreseen / recovered,
        sum(apart) / len(apart) / most,
    )


async def measure(
    broker: Broker, place: Path, report: Report, *, per_s: float, load: float, settle_s: float
) -> None:
    """Run all and fill the report."""
    topics = await traffic.make_topics(broker, "plan", PARTITIONS)
    write_policies(place / "policies", 1, 0, lambda _: 0, mixed=False)
    variables = environment(
        broker.bootstrap_servers,
        topics,
        place / "policies",
        Sizes(default_model()),
        ENGINE__KIND="scripted",
        POLICIES__ARCHIVE="off",
        BATCHING__IN_FLIGHT_RECORDS_MAX="100",
        BATCHING__POLL_RECORDS_MAX="50",
    ) | {"SERVICE_PER_S": str(per_s)}
    arriving = load * REPLICAS * per_s
    replicas = Replicas(variables, place)
    try:
        await asyncio.gather(*(replicas.start(number) for number in range(REPLICAS)))
        async with (
            traffic.Watch(broker.bootstrap_servers, [topics.verdicts], PARTITIONS) as watch,
            Feed(broker.bootstrap_servers, topics.posts, arriving) as feed,
        ):
            backlog = Backlog(watch, feed)
            looking = asyncio.create_task(backlog.run())
            await backlog.calm(arriving, time.monotonic())
            began_s = time.monotonic()
            stop_s = await replicas.stop(0)
            stopped_s = time.monotonic()
            start_s = await replicas.start(0)
            await backlog.calm(arriving, time.monotonic())
            pause_s = backlog.pause_s(stopped_s, time.monotonic())
            found = Overheads(stop_s, start_s, pause_s)
            print(f"measured: {found}", flush=True)
            began_s = time.monotonic()
            for number in range(REPLICAS):
                await replicas.stop(number)
                await replicas.start(number)
                if number < REPLICAS - 1:
                    await asyncio.sleep(settle_s)
            await backlog.calm(arriving, time.monotonic())
            curve = backlog.since(began_s)
            await feed.end()
            await watch.until(feed.sent, _LIMIT_S, lambda: True)
            looking.cancel()
    finally:
        await replicas.close()
    group = Group(REPLICAS, PARTITIONS, arriving, per_s, start_s, stop_s, pause_s, settle_s)
    fill(report, group, simulate(group), curve)


def fill(
    report: Report, group: Group, predicted: Rolled, curve: Sequence[tuple[float, float]]
) -> None:
    """Write prediction and measurement into the report."""
    measured = Rolled(list(curve), 0.0)
    height, time_ratio, apart = compare(predicted, curve)
    report.tables.append(
        Table(
            "Overheads of one restart",
            ("stop, s", "start, s", "rebalance, s"),
            [(group.stop_s, group.start_s, group.rebalance_s)],
        )
    )
    report.tables.append(
        Table(
            "A rolling update of three replicas",
            ("", "predicted", "measured"),
            [
                ("highest backlog, posts", predicted.backlog_max, measured.backlog_max),
                ("backlog is gone, s", predicted.recovery_s, measured.recovery_s),
            ],
            digits=1,
        )
    )
    report.raw.append({"group": vars(group), "measured": list(curve), "predicted": predicted.curve})
    report.pictures["backlog.svg"] = draw(
        "Backlog in a rolling update",
        "s since the first stop",
        "posts",
        [
            Curve("predicted", [each for each in predicted.curve if each[0] <= curve[-1][0]]),
            Curve("measured", curve),
        ],
    )
    for name, value in (("highest backlog", height), ("time until it is gone", time_ratio)):
        report.aim(f"{name}, predicted / measured", value, at_least=WITHIN[0])
        report.aim(f"{name}, predicted / measured, not above", value, at_most=WITHIN[1])
    report.aim("mean difference of the curves / highest backlog", apart, at_most=DIFFERENCE_MAX)


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--per-s", type=float, default=100, help="posts/s that one replica judges (default 100)"
    )
    parser.add_argument(
        "--load", type=float, default=0.7, help="share of the group's capacity (default 0.7)"
    )
    parser.add_argument(
        "--settle-s", type=float, default=10, help="between two replicas, in s (default 10)"
    )
    add_report_options(parser)
    options = parser.parse_args(words)
    if options.quick:
        options.settle_s = 3
    return options


def main() -> int:
    """Measure; return the exit code."""
    options = parse()
    report = Report(
        "plan",
        "Predict the backlog of a rolling update of three replicas, and compare it with a run.",
        {"per_s": options.per_s, "load": options.load, "settle_s": options.settle_s},
        quick=options.quick,
    )

    async def work(broker: Broker, place: Path) -> None:
        await measure(
            broker,
            place,
            report,
            per_s=options.per_s,
            load=options.load,
            settle_s=options.settle_s,
        )

    return run_bench(report, options.output, work)


if __name__ == "__main__":
    sys.exit(main())
