"""Records what a real run publishes, minute by minute, for the tests of the alerts: a real broker, the real program.

``python -m tests.helm.record_scrapes FILE MINUTES`` takes as long as it says. One record in ten is no JSON from the
beginning on, so that the share of dead letters is what an alert has to see.
"""

from __future__ import annotations

import asyncio
import gzip
import sys
import tempfile
import time
import urllib.request
import uuid
from pathlib import Path

import orjson

from stream_guard.testing.broker import start_broker
from tests.integration.harness import deploy, post, produce, running

EVERY_S = 60
RECORDS_A_MINUTE = 120


def scrape(port: int) -> list[str]:
    """Return the samples of our own metrics, one a line, without comments."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        lines: list[str] = answer.read().decode().splitlines()
    return [line for line in lines if line.startswith("stream_guard_")]


def main(file: Path, minutes: int) -> None:
    """Record."""
    recorded = []
    with start_broker() as broker, tempfile.TemporaryDirectory() as folder:

        def new_topic(prefix: str) -> str:
            name = f"{prefix}-{uuid.uuid4().hex[:8]}"
            broker.create_topics(name, partitions=2)
            return name

        place = deploy(broker.bootstrap_servers, new_topic)
        with running(place, Path(folder) / "log") as run:
            port = run.wait_for("ready")["http_port"]
            begun_s = time.monotonic()
            for minute in range(minutes + 1):
                recorded.append({"minute": minute, "lines": scrape(port)})
                numbers = range(minute * RECORDS_A_MINUTE, (minute + 1) * RECORDS_A_MINUTE)
                values = [b"no JSON" if n % 10 == 0 else post(n) for n in numbers]
                asyncio.run(produce(place.bootstrap, place.posts, values))
                file.write_bytes(gzip.compress(orjson.dumps(recorded), mtime=0))
                time.sleep(max(0.0, begun_s + (minute + 1) * EVERY_S - time.monotonic()))
            run.end()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
