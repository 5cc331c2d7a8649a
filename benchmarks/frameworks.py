"""Compares the pipeline alone with a bare loop and with two frameworks: ``make bench-frameworks``.

    bare        aiokafka: read, parse, constant verdict of a real one's size and headers, produce, commit each second
    guard       Stream Guard with a judge that answers at once and no cheap tiers; guarantees and telemetry on
                (1 % of records traced)
    cascade     the same with the default tiers, which settle none of these posts: all differ
    faststream  the same as bare, by FastStream's batch subscriber
    arroyo      the same as bare, by Arroyo's RunTask, Produce and CommitOffsets; of threads and librdkafka

All use one broker. Each is its own process, and they take turns. Each is timed from the first record that it reads to
its last commit. Target: the median of guard / bare is at least 0.6. Exit code 1: a missed target, or not as many
verdicts as posts.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import uuid
from typing import TYPE_CHECKING, Final

from benchmarks.figures import interleaved, median, ratios
from benchmarks.pipeline import FRAMEWORKS, fill, measure
from benchmarks.report import Report, Table
from benchmarks.sides import add_report_options, run_bench

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from stream_guard.testing import Broker

RATIO_MIN: Final = 0.6
SIDES: Final = ("bare", "guard", "cascade", *FRAMEWORKS)


def fill_report(report: Report, rates: Mapping[str, Sequence[float | None]]) -> None:
    """Add the table and the target."""
    rows: list[tuple[str, float | None, float | None]] = []
    for side, found in rates.items():
        rows.append((side, median(found), median(ratios(found, rates["bare"]))))
    columns = ("side", "records/s", "of the bare loop")
    report.tables.append(Table("Pipeline alone, medians", columns, rows))
    share = median(ratios(rates["guard"], rates["bare"]))
    report.aim("median of guard / bare", share, at_least=RATIO_MIN)


async def compare(broker: Broker, report: Report, count: int, rounds: int) -> None:
    """Run all rounds and fill the report."""
    source = f"bench-{uuid.uuid4().hex}"
    await fill(broker.bootstrap_servers, [source], source, count)
    rates: dict[str, list[float | None]] = {side: [] for side in SIDES}
    for number, side in interleaved(SIDES, rounds):
        run = await asyncio.to_thread(measure, side, broker.bootstrap_servers, count, source)
        print(f"round {number + 1}: {side}: {run['rate']:,.0f} records/s", flush=True)
        report.raw.append({"round": number, "side": side, **run})
        rates[side].append(run["rate"])
        if run["verdicts"] != count:
            report.complaints.append(
                f"round {number + 1}: {side}: {run['verdicts']:,.0f} verdicts on {count:,} posts"
            )
    fill_report(report, rates)


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=60_000, help="posts of a run (default 60000)")
    parser.add_argument("--rounds", type=int, default=5, help="of all four sides (default 5)")
    add_report_options(parser)
    options = parser.parse_args(words)
    if options.quick:
        options.count, options.rounds = 2_000, 1
    return options


def main() -> int:
    """Measure; return the exit code."""
    options = parse()
    report = Report(
        "frameworks",
        "Stream Guard with a judge that answers at once, beside a bare loop, FastStream and Arroyo.",
        {"count": options.count, "rounds": options.rounds},
        quick=options.quick,
    )

    async def work(broker: Broker, place: Path) -> None:
        del place
        await compare(broker, report, options.count, options.rounds)

    return run_bench(report, options.output, work)


if __name__ == "__main__":
    sys.exit(main())
