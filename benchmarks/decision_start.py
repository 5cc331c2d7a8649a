"""Measures how long a service takes to start with a million decisions in its topic, on a real broker.

The program itself runs as a process, with the scripted judge, on the same machine as the broker. Measured are the time
that its log gives for reading the decisions, and the time from the start of the process until ``/readyz`` passes.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson
from aiokafka import AIOKafkaProducer

from benchmarks.sides import Side, SideError, Sizes, default_model, environment
from benchmarks.traffic import Topics
from stream_guard.testing import start_broker
from stream_guard.testing.broker.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from stream_guard.testing import MemoryRecord

PARTITIONS: Final = 6
"""As Stream Guard itself creates the topic."""
_TOPICS: Final = Topics("posts", "verdicts", "dead")
_DECISIONS: Final = "stream-guard.decisions"
_POLICY: Final = b"# Spam\n\nAnswer `VIOLATES` or `SAFE`.\n\n## Violates (S1 - Ads)\n"


class Start(NamedTuple):
    """One start of the service.

    Attributes:
        subjects: that it knew after reading.
        read_s: reading all decisions, by the log's ``decisions_read``.
        ready_s: from the start of the process until ``/readyz`` passed.
        resident_bytes: of the process, when it was ready.
    """

    subjects: int
    read_s: float
    ready_s: float
    resident_bytes: int


async def fill(servers: str, records: Iterable[MemoryRecord]) -> None:
    """Write decisions in batches of about 200 kB, to all partitions in turn."""
    producer = AIOKafkaProducer(bootstrap_servers=servers, max_batch_size=200_000, acks=1)
    await producer.start()
    try:
        batches = [producer.create_batch() for _ in range(PARTITIONS)]
        for number, record in enumerate(records):
            place = number % PARTITIONS
            content: dict[str, Any] = {
                "key": record.key,
                "value": record.value,
                "timestamp": None,
                "headers": list(record.headers),
            }
            if batches[place].append(**content) is None:
                await producer.send_batch(batches[place], _DECISIONS, partition=place)
                batches[place] = producer.create_batch()
                batches[place].append(**content)
        for place, batch in enumerate(batches):
            if batch.record_count():
                await producer.send_batch(batch, _DECISIONS, partition=place)
        await producer.flush()
    finally:
        await producer.stop()


async def measure(folder: Path, records: Iterable[MemoryRecord]) -> Start:
    """Start a broker, fill its topic, and start the service once.

    Args:
        folder: for policies and the service's log.
        records: of the decisions topic.

    Raises:
        SideError: the service does not start.
    """
    policy = folder / "policies" / "spam" / "policy.md"
    policy.parent.mkdir(parents=True)
    policy.write_bytes(_POLICY)
    log = folder / "service.log"
    with start_broker() as broker:
        broker.create_topics(*_TOPICS)
        broker.create_topics(
            _DECISIONS, partitions=PARTITIONS, configs={"cleanup.policy": "compact"}
        )
        await fill(broker.bootstrap_servers, records)
        (port,) = free_ports(1)
        variables = environment(
            broker.bootstrap_servers,
            _TOPICS,
            policy.parents[1],
            Sizes(default_model()),
            ENGINE__KIND="scripted",
            HTTP__PORT=str(port),
            DECISIONS__ENABLED="true",
        )
        began_s = time.monotonic()
        async with Side(("stream_guard.cli.main", "run"), variables, log) as side:
            await side.until_ready(f"http://127.0.0.1:{port}/readyz")
            ready_s = time.monotonic() - began_s
            _, resident_bytes = side.used()
            await side.stop()
    for line in log.read_bytes().splitlines():
        event = orjson.loads(line) if line.startswith(b"{") else {}
        if event.get("event") == "decisions_read":
            return Start(event["subjects"], event["took_s"], ready_s, resident_bytes)
    raise SideError("the log has no line decisions_read")
