"""Compares Stream Guard with a bare aiokafka loop, on one broker, in one run.

(a) A bare loop reads, parses, builds a verdict of the same size with as many headers, sends, and commits each second.
    Its ids and hashes are random, so that both sides compress alike.
(b) Stream Guard has a judge that answers at once and no cheap tiers. Guarantees and telemetry are on (1 % of records
    traced).

Prints both rates, the ratio b/a of each pair, their median, and the growth of memory when the stream is ten times as
long. Each side is its own process, and is timed from the first record that it reads to its last commit.
"""

from __future__ import annotations

import argparse
import asyncio
import atexit
import hashlib
import json
import math
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.structs import ConsumerRecord

PARTITIONS = 4
FRAMEWORKS = ("faststream", "arroyo")
_SENTENCE = (
    "as long as posts tend to be on a weekday, and about nothing very much in particular; " * 2
)
_ROOT = Path(__file__).resolve().parent.parent


def post(number: int) -> bytes:
    """Return a post of about 270 bytes."""
    return orjson.dumps(
        {
            "id": f"post-{number:08d}",
            "text": f"Post number {number:08d}: {_SENTENCE}",
            "author": f"author-{number % 1_000}",
            "language": "en",
        }
    )


async def fill(bootstrap: str, topics: list[str], filled: str, count: int) -> None:
    """Create topics and fill one of them."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in topics])
    await admin.close()
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap, linger_ms=5, max_batch_size=1 << 18, acks="all"
    )
    await producer.start()
    # A new topic's leaders answer a little later than its creation does: not a second that either side should pay.
    for name in topics:
        if name != filled:
            await asyncio.gather(
                *[
                    producer.send_and_wait(name, b"{}", partition=partition)
                    for partition in range(PARTITIONS)
                ]
            )
    for number in range(count):
        await producer.send(filled, post(number), key=b"author-%d" % (number % 1_000))
    await producer.flush()
    await producer.stop()


def settings_of(bootstrap: str, source: str, sink: str, dead: str, *, tiers: bool = False) -> Any:
    """Return settings for a run: the scripted judge, one policy, 1 % of records traced; the default tiers or none."""
    from stream_guard.settings import Settings

    return Settings(
        kafka={
            "bootstrap_servers": bootstrap,
            "topics": [source],
            "verdict_topic": sink,
            "dead_letter_topic": dead,
            "group_id": f"bench-{uuid.uuid4().hex}",
        },
        engine={"kind": "scripted"},
        cascade={} if tiers else {"tiers": ["safeguard"], "ladder": []},
        policies={"path": _one_policy()},
        telemetry={"trace_ratio": 0.01, "log_level": "warning"},
        http={"host": "127.0.0.1", "port": 0},
    )


def _one_policy() -> Path:
    """Return a folder with one of the policies that ship, so that each record owes one verdict."""
    folder = Path(tempfile.mkdtemp(prefix="stream-guard-bench-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    shutil.copytree(_ROOT / "policies" / "dangerous-content", folder / "dangerous-content")
    return folder


class Constant:
    """Makes verdicts of the same size as real ones, with as many headers, out of one real verdict.

    Args:
        template: that verdict, as JSON takes it.
        headers: of its record, but for the trace's.
    """

    def __init__(self, template: dict[str, Any], headers: list[tuple[str, bytes]]) -> None:
        from stream_guard.records.verdict_event import encode_verdict

        self._template = template
        self._headers = headers
        self._encode = encode_verdict

    @classmethod
    async def prepare(cls, settings: Any) -> Constant:
        """Judge one post by the scripted judge, and keep what came of it."""
        from prometheus_client import CollectorRegistry

        from stream_guard.core.clock import SystemClock
        from stream_guard.judging.assembly import make_cascade, make_judge
        from stream_guard.judging.contract import JudgeRequest
        from stream_guard.judging.verdict import build_verdict
        from stream_guard.records.post import PostParser
        from stream_guard.records.verdict_event import VerdictEvents
        from stream_guard.service.policies import read_policies
        from stream_guard.telemetry.metrics import Metrics

        topic = settings.kafka.topics[0]
        policies = read_policies(settings)
        judge = make_cascade(
            settings, SystemClock(), Metrics(CollectorRegistry()), make_judge(settings.engine)
        )
        await judge.start(policies)
        made: list[Any] = []
        parsed = PostParser(settings.post).parse(post(0), [])
        judge.submit([JudgeRequest("1", parsed, policies.route(topic)[0])], made.extend)
        record: Any = ConsumerRecord(topic, 0, 0, 1, 0, b"author-0", post(0), None, 8, 0, ())
        template: dict[str, Any] = build_verdict(record, made[0], consumed_ms=1, published_ms=1)
        headers = list(VerdictEvents(1_700_000_000_000).encode(template, "")[1][:-1])
        return cls(template, headers)

    def verdict(self, value: bytes) -> tuple[bytes, list[tuple[str, bytes]]]:
        """Return a verdict on a post and its record's headers; ids, hashes and trace are as random as real ones."""
        parsed = orjson.loads(value)
        verdict = dict(self._template)
        digest = hashlib.sha256(value).hexdigest()
        verdict["id"] = digest[:32]
        verdict["content"] = {
            **self._template["content"],
            "id": parsed["id"],
            "author": parsed["author"],
            "sha256": digest,
        }
        trace = f"00-{random.getrandbits(192):048x}-00".encode()
        return self._encode(verdict), [*self._headers, ("traceparent", trace)]


def bare_clients(kafka: Any) -> tuple[AIOKafkaConsumer, AIOKafkaProducer]:
    """Return the consumer and the producer of a bare loop, with the settings of the service."""
    consumer = AIOKafkaConsumer(
        kafka.topics[0],
        bootstrap_servers=kafka.bootstrap_servers,
        group_id=kafka.group_id,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=kafka.max_partition_fetch_bytes,
        fetch_max_bytes=kafka.fetch_max_bytes,
    )
    producer = AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap_servers,
        enable_idempotence=True,
        linger_ms=kafka.linger_ms,
        max_batch_size=kafka.batch_bytes_max,
        compression_type=kafka.compression_type,
    )
    return consumer, producer


async def bare(settings: Any, count: int) -> float:
    """Run (a); return records/s."""
    kafka = settings.kafka
    consumer, producer = bare_clients(kafka)
    constant = await Constant.prepare(settings)
    await consumer.start()
    await producer.start()
    done, started, committed = 0, 0.0, time.monotonic()
    while done < count:
        for records in (await consumer.getmany(timeout_ms=500, max_records=500)).values():
            started = started or time.monotonic()
            for record in records:
                verdict, headers = constant.verdict(record.value)
                await producer.send(kafka.verdict_topic, verdict, key=record.key, headers=headers)
            done += len(records)
        if time.monotonic() - committed > 1:
            await producer.flush()
            await consumer.commit()
            committed = time.monotonic()
    await producer.flush()
    await consumer.commit()
    rate = count / (time.monotonic() - started)
    await producer.stop()
    await consumer.stop()
    return rate


async def guard(settings: Any, count: int, judge: Any = None) -> float:
    """Run (b), with another judge where one is given; return records/s."""
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

    from stream_guard.service.app import App
    from stream_guard.stream.pipeline import Pipeline

    class Discard(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:  # noqa: ARG002 - it throws them away
            return SpanExportResult.SUCCESS

    app = App(settings, judge=judge, exporter=Discard())
    started = 0.0
    accept = Pipeline.accept

    def timed_accept(self: Pipeline, offsets: Any, records: Any) -> None:
        nonlocal started
        started = started or time.monotonic()
        accept(self, offsets, records)

    Pipeline.accept = timed_accept  # type: ignore[method-assign]
    task = asyncio.create_task(app.run())
    while _verdicts(app) < count:
        if task.done():
            task.result()
        await asyncio.sleep(0.02)
    app.stop()
    seconds = time.monotonic() - started
    await task
    return count / seconds


def _verdicts(app: Any) -> float:
    return math.fsum(
        s.value
        for m in app.metrics.verdicts.collect()
        for s in m.samples
        if s.name.endswith("_total")
    )


def _child(side: str, bootstrap: str, count: int, topics: list[str]) -> None:
    import uvloop

    source, sink, dead = topics
    settings = settings_of(bootstrap, source, sink, dead, tiers=side == "cascade")
    if side in FRAMEWORKS:
        from benchmarks import framework_sides

        rate = framework_sides.run(side, settings, count)
    else:
        work = bare(settings, count) if side == "bare" else guard(settings, count)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            rate = runner.run(work)
    sys.stdout.write(
        json.dumps({"rate": rate, "rss_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss})
        + "\n"
    )


def measure(side: str, bootstrap: str, count: int, source: str) -> dict[str, float]:
    """Run a side in a process of its own; return ``rate`` in records/s, ``rss_kib``, and ``verdicts`` at the broker."""
    sink, dead = f"{side}-{uuid.uuid4().hex}", f"dead-{uuid.uuid4().hex}"
    asyncio.run(fill(bootstrap, [sink, dead], dead, 0))
    command = [
        sys.executable,
        "-m",
        "benchmarks.pipeline",
        "--child",
        side,
        "--bootstrap",
        bootstrap,
        "--count",
        str(count),
        "--topics",
        json.dumps([source, sink, dead]),
    ]
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, cwd=_ROOT, timeout=600, text=True
    )
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    # A new topic's partitions are each written once, to wake its leaders.
    result["verdicts"] = asyncio.run(count_of(bootstrap, sink)) - PARTITIONS
    return result


async def count_of(bootstrap: str, topic: str) -> int:
    """Return how many records a topic has."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap)
    await consumer.start()
    try:
        ends = await consumer.end_offsets([TopicPartition(topic, p) for p in range(PARTITIONS)])
    finally:
        await consumer.stop()
    return sum(ends.values())


def _compare(bootstrap: str, count: int, pairs: int, growth: int) -> int:
    source = f"bench-{uuid.uuid4().hex}"
    print(f"filling {count} posts of {len(post(0))} bytes over {PARTITIONS} partitions")
    asyncio.run(fill(bootstrap, [source], source, count))
    ratios = []
    small_kib = 0.0
    for pair in range(1, pairs + 1):
        a = measure("bare", bootstrap, count, source)
        b = measure("guard", bootstrap, count, source)
        ratios.append(b["rate"] / a["rate"])
        small_kib = b["rss_kib"]
        print(
            f"pair {pair}: bare {a['rate']:,.0f}/s, stream guard {b['rate']:,.0f}/s, ratio {ratios[-1]:.2f}"
        )
    median = statistics.median(ratios)
    print(f"median ratio {median:.2f} (aim 0.60, must reach 0.50)")
    if growth > 1:
        long = f"bench-{uuid.uuid4().hex}"
        asyncio.run(fill(bootstrap, [long], long, count * growth))
        large_kib = measure("guard", bootstrap, count * growth, long)["rss_kib"]
        share = large_kib / small_kib - 1
        print(
            f"peak resident size {small_kib / 1024:.0f} MiB after {count} posts, {large_kib / 1024:.0f} MiB after "
            f"{count * growth}: {share:+.0%} (must be within 20 %)"
        )
        if share > 0.2:  # noqa: PLR2004 - the bound that is printed
            return 1
    return 0 if median >= 0.5 else 1  # noqa: PLR2004 - the bound that is printed


def main() -> int:
    """Run the comparison, or one side of it in a process of its own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=60_000, help="posts (default 60000)")
    parser.add_argument("--pairs", type=int, default=3, help="pairs (default 3)")
    parser.add_argument(
        "--growth", type=int, default=10, help="times as many posts for memory; 1 skips it"
    )
    parser.add_argument(
        "--bootstrap", default=os.environ.get("KAFKA_BOOTSTRAP_SERVERS"), help=argparse.SUPPRESS
    )
    parser.add_argument(
        "--child", choices=("bare", "guard", "cascade", *FRAMEWORKS), help=argparse.SUPPRESS
    )
    parser.add_argument("--topics", type=json.loads, default=[], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        _child(options.child, options.bootstrap, options.count, options.topics)
        return 0
    from stream_guard.testing.broker import start_broker

    with start_broker() as broker:
        print(broker.description)
        return _compare(broker.bootstrap_servers, options.count, options.pairs, options.growth)


if __name__ == "__main__":
    sys.exit(main())
