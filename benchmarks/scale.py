"""Measures how the consumer scales, with a judge that answers at once: ``make bench-scale``.

1. Processes: 1, 2 and 3 of ``stream-guard run`` in one group over 6 partitions. Records/s are measured between 30 % and
   80 % of the verdicts, so that joining and the last partition's end do not count. Efficiency is the rate over that of
   one process times the processes, and times the available cores. The broker shares the cores: on two cores, three
   processes cannot be three times as fast.
2. Records: 10,000, 100,000 and a million through one process. Measures the highest resident size, and CPU time
   per record from 50 thousand records on: fewer are nearly all in flight at once. ``--records`` takes up to 10 million,
   which needs about a quarter of an hour and 20 GB of disk.
3. Start-up: from the start of the process to its first verdict at the broker.
4. Duplicates: a backlog of one text under many ids, with the tier ``duplicates`` on; ``--duplicates``.

Targets: the highest resident size grows by at most 10 % from the second largest count to the largest. CPU per record
grows by at most 25 % from the smallest to the largest. Exit code 1: a missed target, or a post without a verdict.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
import time
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

import orjson

from benchmarks import traffic
from benchmarks.curves import Curve, draw
from benchmarks.figures import median
from benchmarks.report import Report, Table
from benchmarks.sides import Side, Sizes, add_report_options, default_model, environment, run_bench
from benchmarks.workload import Given, make_posts, policy_id, write_policies
from stream_guard.settings import BatchingSettings
from stream_guard.testing.broker.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from stream_guard.testing import Broker

PARTITIONS: Final = 6
GROWTH_MAX: Final = 1.1
COST_MAX: Final = 1.25
LIMIT_S: Final = 3_600.0
_LOOK_S: Final = 0.25
_WINDOW: Final = (0.3, 0.8)
_KINDS: Final = 5_000
_COUNT_MIN: Final = 5 * BatchingSettings().in_flight_records_max
"""The smallest count that can be measured: fewer records are nearly all in flight at once."""
_DUPLICATES: Final = {"CASCADE__TIERS": '["duplicates", "safeguard"]'}


class Ran(NamedTuple):
    """The result of a run.

    Attributes:
        looks: (s since the start of the processes, verdicts at the broker).
        cpu_us: of all processes, per record finished after the first seen verdict; None if there are too few.
        rss_mib: the highest of any process.
        first_s: from the start to the first verdict that the broker had.
    """

    looks: list[tuple[float, int]]
    cpu_us: float | None
    rss_mib: float
    first_s: float | None


def posts_of(run: str, count: int, *, alike: bool = False) -> Iterator[Given]:
    """Yield posts; their texts repeat after five thousand, or at once where they are ``alike``."""
    made = make_posts(run, 1 if alike else min(count, _KINDS), 1)
    bodies = [orjson.loads(one.value) for one in made]
    for number in range(count):
        body = bodies[number % len(bodies)]
        name = f"{run}-{number:08d}"
        yield Given(name, policy_id(0), orjson.dumps(body | {"id": name}))


def steady_rate(looks: Sequence[tuple[float, int]], count: int) -> float | None:
    """Return verdicts/s between 30 % and 80 % of ``count``; None where looks were too few to say."""
    low, high = (share * count for share in _WINDOW)
    inside = [(at_s, there) for at_s, there in looks if low <= there <= high]
    if len(inside) < 2:  # noqa: PLR2004 - a line has two ends
        return None
    (first_s, first), (last_s, last) = inside[0], inside[-1]
    return (last - first) / (last_s - first_s) if last_s > first_s else None


class Bench:
    """What all runs have in common."""

    def __init__(self, broker: Broker, place: Path, report: Report) -> None:
        self._broker = broker
        self._place = place
        self.report = report
        self._policies = place / "policies"
        write_policies(self._policies, 1, 0, lambda _: 0, mixed=False)

    async def run(
        self,
        run: str,
        count: int,
        processes: int = 1,
        *,
        alike: bool = False,
        more: Mapping[str, str] = MappingProxyType({}),
    ) -> Ran:
        """Fill a topic, start processes, and watch them until each post has a verdict."""
        servers = self._broker.bootstrap_servers
        topics = await traffic.make_topics(self._broker, run, PARTITIONS)
        await traffic.fill(servers, topics.posts, posts_of(run, count, alike=alike))
        sizes = Sizes(default_model())
        async with contextlib.AsyncExitStack() as stack:
            watch = traffic.Watch(servers, topics[1:], PARTITIONS)
            await stack.enter_async_context(watch)
            sides = []
            started_ms = time.time() * 1_000
            for number, port in enumerate(free_ports(processes)):
                variables = environment(
                    servers,
                    topics,
                    self._policies,
                    sizes,
                    **{"ENGINE__KIND": "scripted", "HTTP__PORT": str(port), **more},
                )
                log = self._place / f"{run}-{number}.log"
                side = Side(("stream_guard.cli.main", "run"), variables, log)
                sides.append(await stack.enter_async_context(side))
            ran = await self._until(watch, sides, count)
            for side in sides:
                await side.stop()
        return await self._checked(run, count, topics, ran, started_ms)

    async def _until(self, watch: traffic.Watch, sides: Sequence[Side], count: int) -> Ran:
        looks: list[tuple[float, int]] = []
        rss_bytes, began_s = 0, time.monotonic()
        first: tuple[float, int] | None = None
        there = 0
        while there < count:
            if not all(side.alive() for side in sides) or time.monotonic() - began_s > LIMIT_S:
                message = f"{there} of {count} verdicts, and a process ended or took too long"
                raise traffic.EndedError(message)
            await asyncio.sleep(_LOOK_S)
            there = await watch.count()
            looks.append((time.monotonic() - began_s, there))
            used = [side.used() for side in sides]
            rss_bytes = max(rss_bytes, *(rss for _, rss in used))
            cpu_s = sum(spent_s for spent_s, _ in used)
            if there and first is None:
                first = cpu_s, there
        assert first is not None, "there were verdicts"
        left = max(1, there - first[1])
        cpu_us = 1e6 * (cpu_s - first[0]) / left if count >= _COUNT_MIN else None
        return Ran(looks, cpu_us, rss_bytes / 2**20, None)

    async def _checked(
        self, run: str, count: int, topics: traffic.Topics, ran: Ran, started_ms: float
    ) -> Ran:
        servers = self._broker.bootstrap_servers
        keys, first_ms = await traffic.keys_of(servers, topics.verdicts, PARTITIONS)
        dead, _ = await traffic.keys_of(servers, topics.dead, PARTITIONS)
        if len(keys) != count or dead:
            self.report.complaints.append(
                f"{run}: {len(keys):,} posts of {count:,} have a verdict, {len(dead):,} are dead letters"
            )
        first_s = None if first_ms is None else (first_ms - started_ms) / 1_000
        return ran._replace(first_s=first_s)


async def processes(bench: Bench, counts: Sequence[int], records: int) -> None:
    """Measure 1, and more, processes."""
    cores = len(os.sched_getaffinity(0))
    rates: dict[int, float | None] = {}
    rows: list[Sequence[str | float | None]] = []
    for many in counts:
        ran = await bench.run(f"processes-{many}", records, many)
        rate = rates[many] = steady_rate(ran.looks, records)
        print(f"{many} processes: {rate or 0:,.0f} records/s", flush=True)
        bench.report.raw.append({"what": "processes", "processes": many, **ran._asdict()})
        one = rates.get(1)
        share = rate / one if rate and one else None
        by_cores = share / min(many, cores) if share else None
        rows.append((str(many), rate, share / many if share else None, by_cores))
    columns = ("processes", "records/s", "efficiency", f"of {cores} cores")
    bench.report.tables.append(Table("Processes in one group", columns, rows))


async def records(bench: Bench, counts: Sequence[int]) -> None:
    """Measure one process on growing counts of records."""
    found: list[tuple[int, float | None, float]] = []
    rows: list[Sequence[str | float | None]] = []
    firsts: list[float | None] = []
    for count in sorted(counts):
        ran = await bench.run(f"records-{count}", count)
        found.append((count, ran.cpu_us, ran.rss_mib))
        firsts.append(ran.first_s)
        cost = "not measured" if ran.cpu_us is None else f"{ran.cpu_us:.1f} us"
        print(f"{count} records: CPU for each {cost}, {ran.rss_mib:.1f} MiB", flush=True)
        bench.report.raw.append({"what": "records", "records": count, **ran._asdict()})
        rows.append((f"{count:,}", steady_rate(ran.looks, count), ran.cpu_us, ran.rss_mib))
    columns = ("records", "records/s", "CPU us per record", "highest resident MiB")
    bench.report.tables.append(Table("Growing counts of records, one process", columns, rows, 1))
    bench.report.tables.append(
        Table("Start-up", ("figure", "s"), [("start to first verdict, median", median(firsts))])
    )
    lines = [Curve("resident", [(float(count), rss_mib) for count, _, rss_mib in found])]
    picture = draw("Highest resident size", "records", "MiB", lines)
    bench.report.pictures["resident.svg"] = picture
    growth = found[-1][2] / found[-2][2] if len(found) > 1 else None
    bench.report.aim("resident size, largest / second largest", growth, at_most=GROWTH_MAX)
    costs = [cpu_us for _, cpu_us, _ in found if cpu_us]
    rise = costs[-1] / costs[0] if len(costs) > 1 else None
    bench.report.aim("CPU per record, largest / smallest measured", rise, at_most=COST_MAX)


async def duplicates(bench: Bench, count: int) -> None:
    """Measure a backlog of duplicates."""
    ran = await bench.run("duplicates", count, alike=True, more=_DUPLICATES)
    bench.report.raw.append({"what": "duplicates", "records": count, **ran._asdict()})
    first_s = ran.first_s or 0.0
    drained_s = ran.looks[-1][0] - first_s
    rows = [("backlog", float(count)), ("s to drain it", drained_s)]
    rows.append(("records/s", count / drained_s if drained_s > 0 else 0.0))
    bench.report.tables.append(Table("Backlog of duplicates", ("figure", "value"), rows, 1))


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--processes", nargs="+", type=int, default=[1, 2, 3], help="(default 1 2 3)"
    )
    parser.add_argument(
        "--share",
        type=int,
        default=200_000,
        help="records that the processes share (default 200000)",
    )
    parser.add_argument(
        "--records",
        nargs="+",
        type=int,
        default=[10_000, 100_000, 1_000_000],
        help="counts of records for one process (default 10000 100000 1000000)",
    )
    parser.add_argument(
        "--duplicates", type=int, default=1_000_000, help="of the backlog (default 1000000)"
    )
    add_report_options(parser)
    options = parser.parse_args(words)
    if options.quick:
        options.processes, options.share = [1, 2], 3_000
        options.records, options.duplicates = [1_000, 3_000], 3_000
    return options


def main() -> int:
    """Measure; return the exit code."""
    options = parse()
    names = ("processes", "share", "records", "duplicates")
    report = Report(
        "scale",
        "Processes, counts of records, start-up and a backlog, with a judge that answers at once.",
        {name: getattr(options, name) for name in names},
        quick=options.quick,
    )

    async def work(broker: Broker, place: Path) -> None:
        bench = Bench(broker, place, report)
        await processes(bench, options.processes, options.share)
        await records(bench, options.records)
        await duplicates(bench, options.duplicates)

    return run_bench(report, options.output, work)


if __name__ == "__main__":
    sys.exit(main())
