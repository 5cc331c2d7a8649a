"""Sends posts into Kafka and reads verdicts: at once or at a rate; waits, counts and times.

Records have the broker's time, so "appended" means that the broker has the record. Nothing is read while a run is
timed: only the topics' ends are asked for, which costs little. A record without exactly one verdict is an error.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from stream_guard.records.verdict_event import decode_verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from benchmarks.workload import Given
    from stream_guard.testing import Broker

_CONFIGS: Final = {"message.timestamp.type": "LogAppendTime"}
_LOOK_S: Final = 0.1
_COMPLAINTS_MAX: Final = 5


class Topics(NamedTuple):
    """Of one run: posts in, verdicts and dead letters out."""

    posts: str
    verdicts: str
    dead: str


class Seen(NamedTuple):
    """One verdict, with its times as Unix time in ms.

    Attributes:
        post, policy: their ids.
        appended_ms: when the broker had the post.
        consumed_ms, judged_ms, published_ms: as the verdict says; the last is when it was handed to the producer.
        verdict_ms: when the broker had the verdict.
        model_ms: from making the prompt to the model's answer, all attempts; 0 if the verdict does not say.
        prompt_tokens, cached_tokens, output_tokens, attempts: as the verdict says.
        undetermined: whether no answer came.
    """

    post: str
    policy: str
    appended_ms: int
    consumed_ms: int
    judged_ms: int
    published_ms: int
    verdict_ms: int
    model_ms: float
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    attempts: int
    undetermined: bool


class EndedError(Exception):
    """A side ended, or took too long, before all verdicts were there."""


async def make_topics(broker: Broker, run: str, partitions: int) -> Topics:
    """Create the topics of a run."""
    topics = Topics(f"{run}-posts", f"{run}-verdicts", f"{run}-dead")
    await asyncio.to_thread(
        broker.create_topics, *topics, partitions=partitions, configs=_CONFIGS, timeout_s=60
    )
    return topics


async def fill(bootstrap: str, topic: str, posts: Iterable[Given]) -> None:
    """Send posts as fast as it goes, in their order."""
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap, linger_ms=5, max_batch_size=1 << 18, acks="all"
    )
    await producer.start()
    try:
        for post in posts:
            await producer.send(topic, post.value, key=_key(post))
        await producer.flush()
    finally:
        await producer.stop()


async def offer(
    bootstrap: str, topic: str, posts: Sequence[Given], rate: float, *, seed: int = 0
) -> float:
    """Send posts at a rate with random gaps, without waiting for verdicts (open loop); return the real rate.

    Args:
        bootstrap: brokers.
        topic: where to.
        posts: in this order.
        rate: posts/s on average; gaps are exponential, as of people who do not know of each other.
        seed: of the gaps.
    """
    rng = random.Random(seed)  # noqa: S311 - drawn to be repeated
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, linger_ms=0, acks=1)
    await producer.start()
    try:
        # Connections and metadata come first: not a gap that a side should see.
        await producer.partitions_for(topic)
        started_s = due_s = time.monotonic()
        for post in posts:
            due_s += rng.expovariate(rate)
            if (wait_s := due_s - time.monotonic()) > 0:
                await asyncio.sleep(wait_s)
            await producer.send(topic, post.value, key=_key(post))
        spent_s = time.monotonic() - started_s
        await producer.flush()
    finally:
        await producer.stop()
    return len(posts) / spent_s


def _key(post: Given) -> bytes:
    return post.id.encode()


class Watch:
    """Counts the records of topics; opened once per run, so that asking is cheap.

    Args:
        bootstrap: brokers.
        topics: their names.
        partitions: of each.
    """

    def __init__(self, bootstrap: str, topics: Iterable[str], partitions: int) -> None:
        self._consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap)
        self._partitions = [
            TopicPartition(topic, number) for topic in topics for number in range(partitions)
        ]

    async def __aenter__(self) -> Self:
        await self._consumer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._consumer.stop()

    async def count(self) -> int:
        """Return how many records there are; the topics begin at 0 and nothing is deleted."""
        ends = await self._consumer.end_offsets(self._partitions)
        return sum(ends.values())

    async def until(self, count: int, limit_s: float, alive: Callable[[], bool]) -> None:
        """Return once there are so many records.

        Raises:
            EndedError: not within ``limit_s``, or the side that makes them has ended.
        """
        started_s = time.monotonic()
        while (there := await self.count()) < count:
            if not alive():
                message = f"the side ended after {there} of {count} verdicts"
                raise EndedError(message)
            if time.monotonic() - started_s > limit_s:
                message = f"{there} of {count} verdicts within {limit_s:g} s"
                raise EndedError(message)
            await asyncio.sleep(_LOOK_S)


async def read(bootstrap: str, topic: str, partitions: int) -> list[Any]:
    """Return all current records of a topic."""
    async with Watch(bootstrap, [topic], partitions) as watch:
        count = await watch.count()
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    records: list[Any] = []
    try:
        async with asyncio.timeout(60):
            while len(records) < count:
                for batch in (await consumer.getmany(timeout_ms=500)).values():
                    records.extend(batch)
    finally:
        await consumer.stop()
    return records


async def keys_of(bootstrap: str, topic: str, partitions: int) -> tuple[set[bytes], int | None]:
    """Return the keys of a topic's current records, and the first record's time in ms; None if there is no record.

    Records are not kept, so that a topic may be of millions.
    """
    async with Watch(bootstrap, [topic], partitions) as watch:
        count = await watch.count()
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=bootstrap,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=8 << 20,
    )
    keys: set[bytes] = set()
    first_ms: int | None = None
    await consumer.start()
    try:
        while count > 0:
            async with asyncio.timeout(60):
                polled = await consumer.getmany(timeout_ms=500)
            for records in polled.values():
                count -= len(records)
                keys.update(record.key for record in records)
                earliest_ms = min(record.timestamp for record in records)
                first_ms = earliest_ms if first_ms is None else min(first_ms, earliest_ms)
    finally:
        await consumer.stop()
    return keys, first_ms


def seen_of(records: Iterable[Any]) -> list[Seen]:
    """Return what verdicts say, in the order of the broker's clock."""
    found = [_seen(decode_verdict(record.value), record.timestamp) for record in records]
    return sorted(found, key=lambda one: one.verdict_ms)


def _seen(verdict: dict[str, Any], appended_ms: int) -> Seen:
    timing, provenance = verdict["timing"], verdict["provenance"]
    return Seen(
        post=verdict["content"]["id"],
        policy=verdict["policy"]["id"],
        appended_ms=verdict["source"]["timestamp_ms"],
        consumed_ms=timing["consumed"],
        judged_ms=timing["judged"],
        published_ms=timing["published"],
        verdict_ms=appended_ms,
        model_ms=sum(step["duration_us"] for step in provenance.get("trail", ())) / 1_000,
        prompt_tokens=provenance["prompt_tokens"],
        cached_tokens=provenance["cached_tokens"],
        output_tokens=provenance["output_tokens"],
        attempts=provenance["attempts"],
        undetermined=verdict["decision"] == "undetermined",
    )


def complaints(side: str, posts: Sequence[Given], seen: Sequence[Seen], dead: int) -> list[str]:
    """Return the errors in the counts: every post must have exactly one verdict, under its own policy."""
    owed = Counter((post.id, post.policy) for post in posts)
    there = Counter((one.post, one.policy) for one in seen)
    found = [f"{side}: {dead} dead letters"] if dead else []
    for what, wrong in (("without a verdict", owed - there), ("with one too many", there - owed)):
        if wrong:
            named = ", ".join(sorted(post for post, _ in wrong)[:_COMPLAINTS_MAX])
            found.append(f"{side}: {wrong.total()} posts {what} (such as {named})")
    return found


def rate_of(seen: Sequence[Seen]) -> float | None:
    """Return verdicts/s from the first post that was read to the last verdict that the broker had; None for none."""
    if not seen:
        return None
    spent_ms = max(one.verdict_ms for one in seen) - min(one.consumed_ms for one in seen)
    return 1_000 * len(seen) / spent_ms if spent_ms > 0 else None


def flow_of(times_ms: Sequence[int]) -> float:
    """Return how many a second there were between the first and the last; 0 where they are fewer than two."""
    spent_ms = max(times_ms, default=0) - min(times_ms, default=0)
    return 1_000 * (len(times_ms) - 1) / spent_ms if spent_ms > 0 else 0.0


def dump_posts(posts: Sequence[Given]) -> bytes:
    """Return posts as lines, for a side that takes them from a file."""
    return b"".join(
        orjson.dumps([post.id, post.policy, post.value.decode()]) + b"\n" for post in posts
    )
