"""Posts in at a steady rate, and what came out for them: nothing missing, what came twice, and the longest gap."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tools.machines.steps import StepError, until

if TYPE_CHECKING:
    from collections.abc import Mapping

TEXTS = (
    "Buy cheap watches at my shop today, best prices",
    "I planted tomatoes in the garden this morning",
    "Click this link to win a free phone",
    "The trains were late again, so I walked home",
)


class Out(NamedTuple):
    """One verdict or dead letter.

    Attributes:
        source: (partition, offset) of the post.
        policy: the policy's id; empty for a dead letter.
        time_s: when it was published, in seconds since 1970.
    """

    source: tuple[int, int]
    policy: str
    time_s: float


class Account(NamedTuple):
    """What came out for what went in.

    Attributes:
        posts: that went in.
        missing: of them without a verdict.
        repeated: verdicts beyond the first of each policy for a post.
        gap_s: the longest time without a verdict in any partition; NaN where nothing was measured.
    """

    posts: int
    missing: int
    repeated: int
    gap_s: float

    def __str__(self) -> str:
        """Return the account in words, for a table."""
        out = self.posts - self.missing
        return f"{self.posts:,} posts, {out:,} judged, {self.repeated} repeated, gap {self.gap_s:.1f} s"


def create_topics(
    bootstrap: str, names: list[str], partitions: int, client: Mapping[str, Any] | None = None
) -> None:
    """Create topics, unless they are there."""

    async def create() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, **(client or {}))
        await admin.start()
        try:
            there = set(await admin.list_topics())
            wanted = [NewTopic(n, partitions, 1) for n in names if n not in there]
            if wanted:
                await admin.create_topics(wanted)
        finally:
            await admin.close()

    asyncio.run(create())


class Traffic:
    """Posts that go in at a steady rate from a thread of their own, until it is stopped.

    Args:
        bootstrap: the brokers.
        topic: to write to.
        rate: posts per second.
        client: further options of the Kafka client.
    """

    def __init__(
        self, bootstrap: str, topic: str, rate: float, client: Mapping[str, Any] | None = None
    ) -> None:
        self._bootstrap, self._topic, self._rate = bootstrap, topic, rate
        self._client = dict(client or {})
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._send()), daemon=True)
        self.sources: list[tuple[int, int]] = []
        self.failures: list[str] = []
        self.begun_s = 0.0

    def __enter__(self) -> Self:
        """Begin to send."""
        self.begun_s = time.time()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Send no more, and wait until the broker has every post."""
        self.finish()

    def finish(self) -> None:
        """Send no more; return once the broker has every post."""
        self._stop.set()
        self._thread.join(120)
        if self.failures:
            raise StepError(f"posts could not be sent: {self.failures[0]}")

    async def _send(self) -> None:
        producer = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap,
            enable_idempotence=True,
            # Longer than any broker is away here.
            request_timeout_ms=120_000,
            linger_ms=5,
            **self._client,
        )
        await producer.start()
        begun_s, sent = time.monotonic(), 0
        try:
            while not self._stop.is_set():
                due = int((time.monotonic() - begun_s) * self._rate)
                while sent < due:
                    text = f"{TEXTS[sent % len(TEXTS)]} ({self.begun_s:.0f}-{sent})"
                    value = orjson.dumps({"id": f"{self.begun_s:.0f}-{sent}", "text": text})
                    future = await producer.send(self._topic, value, key=b"k%d" % (sent % 64))
                    future.add_done_callback(self._note)
                    sent += 1
                await asyncio.sleep(0.02)
        finally:
            await producer.stop()

    def _note(self, future: asyncio.Future[Any]) -> None:
        error = future.exception()
        if error is not None:
            self.failures.append(repr(error))
        else:
            meta = future.result()
            self.sources.append((meta.partition, meta.offset))


def account(sources: list[tuple[int, int]], found: list[Out], begun_s: float) -> Account:
    """Return what came out for what went in.

    Args:
        sources: (partition, offset) of each post.
        found: verdicts and dead letters, of these posts and of others.
        begun_s: when the first post went in; a gap may begin there.
    """
    wanted = set(sources)
    mine = [out for out in found if out.source in wanted]
    times: dict[int, list[float]] = {}
    for out in mine:
        times.setdefault(out.source[0], [begun_s]).append(out.time_s)
    gaps = [
        b - a for at in times.values() for a, b in zip(sorted(at), sorted(at)[1:], strict=False)
    ]
    judged = {out.source for out in mine}
    repeated = len(mine) - len({(out.source, out.policy) for out in mine})
    gap_s = max(gaps, default=float("nan"))
    return Account(len(wanted), len(wanted - judged), repeated, gap_s)


class Reader:
    """Reads whole topics again and again, and keeps the records that it has read.

    Args:
        bootstrap: the brokers.
    """

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._kept: dict[str, list[Any]] = {}
        self._next: dict[TopicPartition, int] = {}

    def read(self, topic: str) -> list[Any]:
        """Return every record of a topic, up to its end at this moment."""
        kept = self._kept.setdefault(topic, [])
        kept += asyncio.run(self._read_new(topic))
        return kept

    async def _read_new(self, topic: str) -> list[Any]:
        # Without a group it is assigned every partition.
        consumer = AIOKafkaConsumer(
            topic,
            bootstrap_servers=self._bootstrap,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
        )
        await consumer.start()
        found: list[Any] = []
        try:
            partitions = sorted(consumer.assignment())
            ends = await consumer.end_offsets(partitions)
            for partition in partitions:
                consumer.seek(partition, self._next.get(partition, 0))
            while any([await consumer.position(p) < ends[p] for p in partitions]):
                for batch in (await consumer.getmany(timeout_ms=500)).values():
                    found += batch
            for partition in partitions:
                self._next[partition] = await consumer.position(partition)
        finally:
            await consumer.stop()
        return found

    def outs(self, topics: tuple[str, ...]) -> list[Out]:
        """Return the verdicts and dead letters in these topics."""
        return [out_of(record) for topic in topics for record in self.read(topic)]

    def settled(self, traffic: Traffic, topics: tuple[str, ...], timeout_s: float) -> Account:
        """Return the account of some traffic once nothing of it is missing."""

        def look() -> Account | None:
            found = account(traffic.sources, self.outs(topics), traffic.begun_s)
            return found if found.missing == 0 else None

        count = len(traffic.sources)
        made: Account = until(f"a verdict for each of {count} posts", look, timeout_s)
        return made


def out_of(record: Any) -> Out:
    """Return what one record of a topic of verdicts or of dead letters is about."""
    headers, time_s = dict(record.headers), record.timestamp / 1000
    if "sg_reason" in headers:
        return Out((int(headers["sg_partition"]), int(headers["sg_offset"])), "", time_s)
    verdict = orjson.loads(record.value)
    said = verdict["source"]
    return Out((said["partition"], said["offset"]), verdict["policy"]["id"], time_s)
