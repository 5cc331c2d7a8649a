"""Measures what people's decisions cost: a pipeline without them, and one that knows a million.

Prints posts per second of the pipeline alone, with decisions off and with a full table, in turn. The judge and the
publisher answer at once, without a broker, so the ratio is lower than that of a whole service. Also prints the memory
for each decision, and how long the program takes to read all of them at its start, from a real broker on this machine.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import orjson
from prometheus_client import CollectorRegistry

from benchmarks import decision_start
from benchmarks.pipeline import post
from benchmarks.sides import SideError
from stream_guard.core.clock import SystemClock
from stream_guard.core.gc_tuning import tune_garbage_collector
from stream_guard.core.kafka_types import Partition
from stream_guard.judging.engine.scripted import ScriptedJudge
from stream_guard.judging.human.judge import HumanFirst
from stream_guard.judging.human.table import DecisionTable
from stream_guard.kafka.decision_feed import START_POLL_RECORDS
from stream_guard.policies.policy import PolicySet, make_policy
from stream_guard.records.decision import encode_decision, subject_key
from stream_guard.records.post import PostParser
from stream_guard.records.verdict_event import verdict_id
from stream_guard.settings import Settings
from stream_guard.stream.decision_lane import DecisionLane, DecisionReader
from stream_guard.stream.offsets import PartitionOffsets
from stream_guard.stream.person_wins import LateAnswers, PersonWins
from stream_guard.stream.pipeline import Pipeline
from stream_guard.stream.tracing.record_tracer import Tracing
from stream_guard.telemetry.metrics import Metrics
from stream_guard.testing import MemoryRecord

POLICIES = PolicySet({"spam": make_policy("spam", b"# Spam\nS1: ads\n")}, {"posts": ("spam",)})
TOPIC = "stream-guard.decisions"
RATIO_MIN = 0.9
BYTES_MAX = 300
START_S_MAX = 30.0


class AtOnce:
    """A publisher that acknowledges everything at once, and keeps nothing."""

    def publish(self, outgoing: Any, acknowledged: Any) -> None:
        """Acknowledge."""
        acknowledged(outgoing)


def decision_records(count: int) -> Any:
    """Yield records of decisions about as many contents, as a review tool writes them."""
    from tests.decisions import make_decision

    _, value, headers = encode_decision(make_decision())
    template = orjson.loads(value)
    for number in range(count):
        about = template["about"]
        about["content"]["id"] = f"decided-{number:08d}"
        about["source"]["offset"] = number
        about["verdict_id"] = verdict_id("posts", 0, number, "spam", about["policy"]["sha256"])
        template["id"] = f"d-{number}"
        yield MemoryRecord(
            TOPIC,
            0,
            number,
            template["decided_at"],
            subject_key("spam", None, about["content"]["id"]),
            orjson.dumps(template),
            headers,
        )


def load(table: DecisionTable, reader: DecisionReader, count: int) -> tuple[float, float]:
    """Read decisions into a table as the start does; return s, and bytes of memory for each."""
    before, spent_s = _resident_bytes(), 0.0
    batch: list[MemoryRecord] = []

    def take() -> None:
        nonlocal spent_s
        began_s = time.perf_counter()
        table.stage([seen for record in batch if (seen := reader.unread(record)) is not None])
        spent_s += time.perf_counter() - began_s
        batch.clear()

    for record in decision_records(count):
        batch.append(record)
        if len(batch) == START_POLL_RECORDS:
            take()
    take()
    began_s = time.perf_counter()
    table.settle()
    spent_s += time.perf_counter() - began_s
    return spent_s, (_resident_bytes() - before) / max(1, count)


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * resource.getpagesize()


async def rate(settings: Settings, table: DecisionTable | None, posts: int) -> float:
    """Return posts per s of a pipeline."""
    metrics, clock = Metrics(CollectorRegistry()), SystemClock()
    tracing = Tracing(settings.telemetry, group="bench", exporter=None, metrics=metrics)
    judge: Any = ScriptedJudge()
    publisher: Any = AtOnce()
    lane = None
    if table is not None:
        judge = HumanFirst(judge, table, clock=clock, metrics=metrics)
        publisher = PersonWins(publisher, LateAnswers(table, settings.kafka, tracing, clock))
        lane = DecisionLane(settings, table, metrics)
    pipeline = Pipeline(
        settings,
        POLICIES,
        parser=PostParser(settings.post),
        judge=judge,
        publisher=publisher,
        clock=clock,
        metrics=metrics,
        tracing=tracing,
        decisions=lane,
    )
    offsets = PartitionOffsets(Partition("posts", 0), 1)
    records = [MemoryRecord("posts", 0, n, 1, b"k", post(n)) for n in range(posts)]
    began_s = time.perf_counter()
    for begin in range(0, posts, 500):
        pipeline.accept(offsets, records[begin : begin + 500])
        pipeline.dispatch(flush=True)
        while pipeline.live.unfinished([offsets.partition]):  # noqa: ASYNC110 - nobody sets an event
            await asyncio.sleep(0)  # the judge answers in the next turn of the loop
    return posts / (time.perf_counter() - began_s)


def measure_start(count: int) -> float:
    """Start the program on a broker that has so many decisions, print how long it took, and return s of reading.

    Raises:
        SideError: it does not start, or does not know all of them.
    """
    with tempfile.TemporaryDirectory(prefix="stream-guard-bench-") as folder:
        start = asyncio.run(decision_start.measure(Path(folder), decision_records(count)))
    if start.subjects != count:
        message = f"the service knew {start.subjects:,} of {count:,} decisions"
        raise SideError(message)
    print(
        f"a start from a broker read {count:,} decisions in {start.read_s:.1f} s, and was ready after "
        f"{start.ready_s:.1f} s with {start.resident_bytes / (1 << 20):,.0f} MiB of memory"
    )
    return start.read_s


def main() -> int:
    """Measure and print; exit 1 if the ratio is below 0.9, a decision takes over 300 bytes, or reading over 30 s."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--decisions", type=int, default=1_000_000)
    parser.add_argument("--posts", type=int, default=50_000)
    parser.add_argument(
        "--rounds", type=int, default=5, help="pairs of pipelines; 0: only the start"
    )
    parser.add_argument("--no-broker", action="store_true", help="do not start the program itself")
    arguments = parser.parse_args()
    kept = True
    if not arguments.no_broker:
        kept = measure_start(arguments.decisions) <= START_S_MAX
    if arguments.rounds:
        kept &= measure_pipeline(arguments.decisions, arguments.posts, arguments.rounds)
    return 0 if kept else 1


def measure_pipeline(count: int, posts: int, rounds: int) -> bool:
    """Fill a table, run pipelines in turn, print, and return whether memory and ratio are within their bounds."""
    settings = Settings(kafka={"topics": ["posts"]})
    reader = DecisionReader(settings)
    table = DecisionTable(settings.decisions.memory_bytes_max, reader.read_later)
    # As the service does before it reads them.
    tune_garbage_collector(settings.batching.in_flight_records_max)
    took_s, size_bytes = load(table, reader, count)
    print(
        f"{count:,} decisions read and stored in {took_s:.1f} s, {size_bytes:.0f} bytes each in memory"
    )
    ratios = []
    for _ in range(rounds):
        without = asyncio.run(rate(settings, None, posts))
        with_all = asyncio.run(rate(settings, table, posts))
        ratios.append(with_all / without)
        print(f"off {without:,.0f} posts/s, on {with_all:,.0f} posts/s, ratio {ratios[-1]:.3f}")
    median = statistics.median(ratios)
    print(f"median ratio {median:.3f}")
    return median >= RATIO_MIN and size_bytes <= BYTES_MAX


if __name__ == "__main__":
    sys.exit(main())
