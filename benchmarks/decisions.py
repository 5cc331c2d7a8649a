"""Measures what people's decisions cost: a pipeline without them, and one that knows a million.

Prints posts per second of the pipeline alone, with decisions off and with a full table, in turn. The judge and the
publisher answer at once, without a broker, so the ratio is lower than that of a whole service. Also prints the time
that reading the decisions takes, and the memory for each.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import orjson
from prometheus_client import CollectorRegistry

from benchmarks.pipeline import post
from stream_guard.core.clock import SystemClock
from stream_guard.core.kafka_types import Partition
from stream_guard.judging.engine.scripted import ScriptedJudge
from stream_guard.judging.human.judge import HumanFirst
from stream_guard.judging.human.table import DecisionTable, Row
from stream_guard.kafka.decision_feed import POLL_RECORDS
from stream_guard.policies.policy import PolicySet, make_policy
from stream_guard.records.decision import encode_decision, subject_key
from stream_guard.records.post import PostParser
from stream_guard.records.verdict_event import verdict_id
from stream_guard.service.gc_tuning import tune_garbage_collector
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


def load(table: DecisionTable, settings: Settings, count: int) -> tuple[float, float]:
    """Read decisions into a table as the start does; return s, and bytes of memory for each."""
    reader = DecisionReader(settings)
    before, spent_s = _resident_bytes(), 0.0
    batch: list[MemoryRecord] = []

    def take() -> None:
        nonlocal spent_s
        began_s = time.perf_counter()
        table.load([Row(reader.read(record), record.value, record.key) for record in batch])
        spent_s += time.perf_counter() - began_s
        batch.clear()

    for record in decision_records(count):
        batch.append(record)
        if len(batch) == POLL_RECORDS:
            take()
    take()
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
        while pipeline.unfinished([offsets.partition]):  # noqa: ASYNC110 - nobody sets an event
            await asyncio.sleep(0)  # the judge answers in the next turn of the loop
    return posts / (time.perf_counter() - began_s)


def main() -> int:
    """Measure and print; exit 1 if the ratio is below 0.9, a decision takes over 300 bytes, or reading over 30 s."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--decisions", type=int, default=1_000_000)
    parser.add_argument("--posts", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    settings = Settings(kafka={"topics": ["posts"]})
    table = DecisionTable(settings.decisions.memory_bytes_max)
    tune_garbage_collector()  # as the service does before it reads them
    took_s, size_bytes = load(table, settings, arguments.decisions)
    print(
        f"{arguments.decisions:,} decisions read in {took_s:.1f} s, {size_bytes:.0f} bytes each in memory"
    )
    ratios = []
    for _ in range(arguments.rounds):
        without = asyncio.run(rate(settings, None, arguments.posts))
        with_all = asyncio.run(rate(settings, table, arguments.posts))
        ratios.append(with_all / without)
        print(f"off {without:,.0f} posts/s, on {with_all:,.0f} posts/s, ratio {ratios[-1]:.3f}")
    median = statistics.median(ratios)
    print(f"median ratio {median:.3f}")
    kept = took_s <= START_S_MAX and size_bytes <= BYTES_MAX
    return 0 if median >= RATIO_MIN and kept else 1


if __name__ == "__main__":
    sys.exit(main())
