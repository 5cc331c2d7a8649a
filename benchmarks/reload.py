"""Measures how soon an edited policy shows in verdicts, with the real engine: ``make bench-reload``.

The time runs from the write of the file to the publishing of the first verdict under the new text, in s. The target is
at most 5 s.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from stream_guard.policies.policy import make_policy
from stream_guard.testing.broker import start_broker
from stream_guard.testing.random_model import make_random_model

if TYPE_CHECKING:
    from collections.abc import Sequence

AIM_S = 5.0
CAUGHT_UP_MS = 1_000


def text_of(number: int) -> bytes:
    """Return a version of the policy."""
    return (
        f"# Touting\n\nAnswer `VIOLATES` or `SAFE`.\n\n## Violates (TT{number} - Price)\n".encode()
    )


def environment(bootstrap_servers: str, folder: Path, model: Path) -> dict[str, str]:
    """Return the program's settings: small, for a CPU."""
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "STREAM_GUARD_KAFKA__BOOTSTRAP_SERVERS": bootstrap_servers,
        "STREAM_GUARD_KAFKA__TOPICS": '["posts"]',
        "STREAM_GUARD_KAFKA__VERDICT_TOPIC": "verdicts",
        "STREAM_GUARD_KAFKA__DEAD_LETTER_TOPIC": "dead",
        "STREAM_GUARD_POLICIES__PATH": str(folder),
        "STREAM_GUARD_ENGINE__MODEL": str(model),
        "STREAM_GUARD_ENGINE__MAX_NUM_SEQS": "16",
        "STREAM_GUARD_ENGINE__REASONING_TOKENS_MAX": "32",
        "STREAM_GUARD_ENGINE__RATIONALE_TOKENS_MAX": "16",
        # Random weights are never certain: every post would climb, and the backlog would dominate the measurement.
        "STREAM_GUARD_CASCADE__LADDER": "[]",
        "STREAM_GUARD_HTTP__HOST": "127.0.0.1",
        "STREAM_GUARD_HTTP__PORT": "0",
        "STREAM_GUARD_TELEMETRY__LOG_FORMAT": "json",
        "STREAM_GUARD_TELEMETRY__LOG_LEVEL": "warning",
    }


async def feed(bootstrap_servers: str, rate: float) -> None:
    """Send posts until cancelled."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap_servers)
    await producer.start()
    try:
        number = 0
        while True:
            post = {"id": str(number), "text": f"a post about nothing much {number}"}
            await producer.send_and_wait("posts", orjson.dumps(post))
            number += 1
            await asyncio.sleep(1 / rate)
    finally:
        await producer.stop()


async def measure(bootstrap_servers: str, policy: Path, edits: int) -> list[float]:
    """Return the seconds that each edit took to show."""
    consumer = AIOKafkaConsumer("verdicts", bootstrap_servers=bootstrap_servers)
    await consumer.start()
    taken: list[float] = []
    try:
        async with asyncio.timeout(300):
            # Posts have come since before the engine was ready: begin once it has caught up.
            async for record in consumer:
                verdict = orjson.loads(record.value)
                if (
                    verdict["timing"]["published"] - verdict["source"]["timestamp_ms"]
                    < CAUGHT_UP_MS
                ):
                    break
        for number in range(1, edits + 1):
            sha256 = make_policy("touting", text_of(number)).sha256
            written_ms = time.time() * 1_000
            await asyncio.to_thread(policy.write_bytes, text_of(number))
            async with asyncio.timeout(120):
                async for record in consumer:
                    verdict = orjson.loads(record.value)
                    if verdict["policy"]["sha256"] == sha256:
                        taken.append((verdict["timing"]["published"] - written_ms) / 1_000)
                        break
            print(f"edit {number}: {taken[-1]:.2f} s", file=sys.stderr)
    finally:
        await consumer.stop()
    return taken


async def run(edits: int, rate: float, place: Path) -> Sequence[float]:
    """Start everything, measure, stop everything."""
    model, folder = place / "model", place / "policies"
    make_random_model(model)
    (folder / "touting").mkdir(parents=True)
    policy = folder / "touting" / "policy.md"
    policy.write_bytes(text_of(0))
    with start_broker() as broker:
        broker.create_topics("posts", "verdicts", "dead", partitions=2)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "stream_guard", "run"),
            env=environment(broker.bootstrap_servers, folder, model),
        )
        feeding = asyncio.create_task(feed(broker.bootstrap_servers, rate))
        try:
            return await measure(broker.bootstrap_servers, policy, edits)
        finally:
            feeding.cancel()
            process.send_signal(signal.SIGTERM)
            await process.wait()


def main() -> int:
    """Measure; exit 1 if the target is missed."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--edits", type=int, default=10)
    arguments.add_argument("--rate", type=float, default=20, help="posts a second")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as place:
        taken = asyncio.run(run(options.edits, options.rate, Path(place)))
    worst = max(taken)
    print(
        f"{len(taken)} edits under {options.rate:g} posts/s: median {statistics.median(taken):.2f} s, "
        f"worst {worst:.2f} s; aim {AIM_S:g} s: {'reached' if worst <= AIM_S else 'MISSED'}"
    )
    return worst > AIM_S


if __name__ == "__main__":
    sys.exit(main())
