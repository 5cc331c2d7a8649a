"""Numbers posts and sends them, whatever becomes of the brokers; now and then something malformed, or aborted.

What it must never do: count a post as sent before the brokers have acknowledged it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import random
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from stream_guard.judging.hostile_posts import ATTACKS
from stream_guard.kafka.decompression import RECORD_BYTES_MAX
from stream_guard.policies.taxonomy import Taxonomy
from tests.soak.facts import Acknowledged

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

TRANSACTIONAL_ID: Final = "soak-noise"
_WAVE_S: Final = 0.1
_WAVE_RECORDS: Final = 500
_POISON_EVERY: Final = 200
_SEND_S: Final = 20.0
_PAUSE_S: Final = 0.5
BOMB_BYTES: Final = 64 << 20

DELETION: Final = b'{"op":"d"'
"""How a record begins that says that a post was deleted at its source."""
POISON: Final[tuple[bytes, ...]] = (
    b"nothing",
    b'{"id":"1","text":"\xff"}',
    b"{",
    b'{"id":"1"}',
    b'{"id":"1","text":[]}',
    b'{"id":"1","text":"' + b"x" * 70_000 + b'"}',
    b'{"id":"1","text":"x","a":' + b"[" * 70 + b"]" * 70 + b"}",
)
MARKER: Final = "soak-end"
"""The name of the header of records that only say that a log ends here."""


OVERSIZED: Final = "oversized"
"""The name of a record that is too long to keep; its dead letter has none of its bytes."""


def digest(value: bytes | None) -> str:
    """Return a name for bytes that have none of their own."""
    if value is not None and len(value) > RECORD_BYTES_MAX:
        return OVERSIZED
    return "null" if value is None else hashlib.sha256(value).hexdigest()[:16]


def post(name: str, number: int) -> bytes:
    """Return a post; one in three violates by the scripted judge's rule, and one in seven is hostile."""
    words = "[violates]" if number % 3 == 0 else "nothing much"
    if number % 7 == 0:
        words = ATTACKS[number // 7 % len(ATTACKS)].apply(words, Taxonomy())
    return orjson.dumps({"id": name, "text": f"{words} {number}", "author": f"a{number % 97}"})


class Sending(NamedTuple):
    """One record to send; ``name`` is the post's id, or empty where it is none."""

    name: str
    key: bytes
    value: bytes | None


def key_of(name: str) -> bytes:
    """Return the key of a post's records; a hundredth of all posts have the same."""
    return f"k{name[-2:]}".encode()


def numbered(number: int) -> Sending:
    """Return the record of a numbered post."""
    name = f"p{number}"
    return Sending(name, key_of(name), post(name, number))


class Poster:
    """Sends numbered posts to one topic: each partition by a producer and a task of its own.

    Args:
        bootstrap: of the brokers.
        topic: to send to.
        partitions: how many it has.
        rate: posts per second, over all partitions.
        posts_min: how many at least.

    Attributes:
        acknowledged: what the brokers have said that they have.
    """

    def __init__(
        self, bootstrap: str, topic: str, *, partitions: int, rate: float, posts_min: int
    ) -> None:
        self._bootstrap = bootstrap
        self._topic = topic
        self._partitions = partitions
        self._rate = rate
        self._posts_min = posts_min
        self._numbers = itertools.count(1)
        self._finishing = asyncio.Event()
        self._next: list[list[Sending]] = [[] for _ in range(partitions)]
        self.acknowledged: list[Acknowledged] = []

    def poison(self, partition: int, count: int) -> None:
        """Have that many malformed records sent next, of every kind in turn."""
        values = itertools.islice(itertools.cycle(POISON), count)
        self._next[partition].extend(Sending("", key_of(""), value) for value in values)

    def repeat(self, names: Iterable[str]) -> None:
        """Have these numbered posts sent again, each in the partition of its number."""
        for name in names:
            number = int(name.removeprefix("p"))
            self._next[number % self._partitions].append(numbered(number))

    def delete(self, partition: int, count: int) -> int:
        """Have the last posts of a partition deleted: one half by key, one half by id; return how many."""
        mine = [sent.name for sent in self.acknowledged if sent.partition == partition][-count:]
        for name in mine[::2]:
            self._next[partition].append(Sending("", key_of(name), None))
        for name in mine[1::2]:
            value = DELETION + b',"id":' + orjson.dumps(name) + b"}"
            self._next[partition].append(Sending("", key_of(name), value))
        return len(mine)

    def finish(self) -> None:
        """Send what is missing from ``posts_min`` as fast as it goes, and end."""
        self._finishing.set()

    async def run(self) -> dict[int, int]:
        """Send until :meth:`finish`; return the last offset of each partition that the brokers acknowledged."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._feed(p)) for p in range(self._partitions)]
        return {partition: task.result() for partition, task in enumerate(tasks)}

    async def _feed(self, partition: int) -> int:
        producer: AIOKafkaProducer | None = None
        quota = -(-self._posts_min // self._partitions)
        per_s = self._rate / self._partitions
        begun_s, sent = time.monotonic(), 0
        waiting: list[Sending] = []
        last = -1
        try:
            while True:
                finishing = self._finishing.is_set()
                if not waiting:
                    due = quota if finishing else due_by(time.monotonic() - begun_s, per_s, quota)
                    waiting = self._make(min(max(due - sent, 0), _WAVE_RECORDS), partition)
                    sent += sum(bool(one.name) for one in waiting)
                if not waiting and finishing:
                    return last
                producer = producer or await connect(self._bootstrap)
                waiting, offset = await self._wave(producer, partition, waiting)
                last = max(last, offset)
                if waiting:  # an idempotent producer that failed once is in doubt for good
                    await _close(producer)
                    producer = None
                    await asyncio.sleep(_PAUSE_S)
                elif not finishing:
                    await asyncio.sleep(_WAVE_S)
        finally:
            if producer is not None:
                await _close(producer)

    def _make(self, count: int, partition: int) -> list[Sending]:
        made, self._next[partition] = self._next[partition], []
        for number in itertools.islice(self._numbers, count):
            made.append(numbered(number))
            if number % _POISON_EVERY == 0:
                value = POISON[number // _POISON_EVERY % len(POISON)]
                made.append(Sending("", key_of(""), value))
        return made

    async def _wave(
        self, producer: AIOKafkaProducer, partition: int, wave: Sequence[Sending]
    ) -> tuple[list[Sending], int]:
        """Send once; return what was not acknowledged, which may be in the log all the same, and the last offset."""
        futures: list[asyncio.Future[Any]] = []
        with contextlib.suppress(KafkaError, OSError, TimeoutError):
            async with asyncio.timeout(_SEND_S):
                for _, key, value in wave:
                    futures.append(
                        await producer.send(self._topic, value, key=key, partition=partition)
                    )
        if futures:
            await asyncio.wait(futures, timeout=_SEND_S)
        again, last = list(wave[len(futures) :]), -1
        for one, future in zip(wave, futures, strict=False):
            if not future.done():
                future.cancel()
                again.append(one)
            elif future.cancelled() or future.exception() is not None:
                again.append(one)
            else:
                offset = future.result().offset
                last = max(last, offset)
                if one.name:
                    self.acknowledged.append(Acknowledged(one.name, partition, offset))
        return again, last


def due_by(elapsed_s: float, per_s: float, quota: int) -> int:
    """Return how many posts are due: beyond the quota, while faults still go on, at a quarter of the rate."""
    due = elapsed_s * per_s
    return int(due if due <= quota else quota + (due - quota) / 4)


async def connect(
    bootstrap: str, transactional_id: str | None = None, compression: str | None = None
) -> AIOKafkaProducer:
    """Return a started idempotent producer; try until a broker takes it."""
    while True:
        producer = AIOKafkaProducer(
            bootstrap_servers=bootstrap,
            acks="all",
            enable_idempotence=True,
            linger_ms=5,
            request_timeout_ms=10_000,
            metadata_max_age_ms=5_000,
            max_request_size=2 * BOMB_BYTES if compression else 2 << 20,
            compression_type=compression,
            transactional_id=transactional_id,
            transaction_timeout_ms=10_000,
        )
        try:
            async with asyncio.timeout(_SEND_S):
                await producer.start()
        except (KafkaError, OSError, TimeoutError):
            await _close(producer)
            await asyncio.sleep(_PAUSE_S)
        else:
            return producer


async def _close(producer: AIOKafkaProducer) -> None:
    with contextlib.suppress(KafkaError, OSError, TimeoutError):
        async with asyncio.timeout(5):
            await producer.stop()


async def make_noise(bootstrap: str, topic: str, partitions: int, seed: int) -> None:
    """Send small transactions for ever, and abort two in three: their posts are nobody's to judge."""
    draw = random.Random(seed)  # noqa: S311 - a workload, not a secret
    producer: AIOKafkaProducer | None = None
    try:
        for number in itertools.count():
            if producer is None:
                producer = await connect(bootstrap, TRANSACTIONAL_ID)
            partition, abort = draw.randrange(partitions), draw.random() < 2 / 3
            try:
                async with asyncio.timeout(_SEND_S):
                    await _transaction(producer, topic, partition, number, abort=abort)
            except (KafkaError, OSError, TimeoutError):
                await _close(producer)
                producer = None
            await asyncio.sleep(1)
    finally:
        if producer is not None:
            await _close(producer)


async def abort_long(bootstrap: str, topic: str, partition: int, count: int, name: str) -> None:
    """Send so many posts to one partition in a transaction, and abort it; try until that succeeds.

    Args:
        bootstrap: of the brokers.
        topic: where to.
        partition: of it.
        count: how many posts.
        name: of its producer; no other transaction of the soak has it.
    """
    for attempt in itertools.count():
        producer = await connect(bootstrap, f"{TRANSACTIONAL_ID}-{name}")
        try:
            async with asyncio.timeout(_SEND_S):
                number = f"{name}-{attempt}"
                await _transaction(producer, topic, partition, number, count=count, abort=True)
        except (KafkaError, OSError, TimeoutError):
            continue
        else:
            return
        finally:
            await _close(producer)


async def send_bombs(bootstrap: str, topic: str, partition: int, count: int) -> None:
    """Send so many records of one letter, each compressed to a few kB; try until all are acknowledged."""
    while True:
        producer = await connect(bootstrap, compression="zstd")
        try:
            async with asyncio.timeout(2 * _SEND_S):
                for _ in range(count):
                    await producer.send_and_wait(topic, b"x" * BOMB_BYTES, partition=partition)
        except (KafkaError, OSError, TimeoutError):
            continue
        else:
            return
        finally:
            await _close(producer)


async def _transaction(
    producer: AIOKafkaProducer,
    topic: str,
    partition: int,
    number: int | str,
    *,
    abort: bool,
    count: int = 3,
) -> None:
    await producer.begin_transaction()
    futures = [
        await producer.send(topic, post(f"t{number}-{k}", k), key=b"noise", partition=partition)
        for k in range(count)
    ]
    await asyncio.gather(*futures)
    if abort:
        await producer.abort_transaction()
    else:
        await producer.commit_transaction()


async def send_one(bootstrap: str, topic: str, key: bytes, value: bytes | None) -> None:
    """Send one record to the first partition of a topic; try until it is acknowledged."""
    while True:
        producer = await connect(bootstrap)
        try:
            async with asyncio.timeout(_SEND_S):
                await producer.send_and_wait(topic, value, key=key, partition=0)
        except (KafkaError, OSError, TimeoutError):
            continue
        else:
            return
        finally:
            await _close(producer)


async def send_keyed(
    bootstrap: str, topic: str, records: Sequence[tuple[bytes, bytes]]
) -> dict[int, int]:
    """Send records in their order, one after another; try each until it is acknowledged.

    A record whose acknowledgement was lost is in the log twice.

    Returns:
        By partition, the last offset.
    """
    last: dict[int, int] = {}
    left = list(records)
    while left:
        producer = await connect(bootstrap)
        try:
            async with asyncio.timeout(_SEND_S):
                while left:
                    key, value = left[0]
                    sent = await producer.send_and_wait(topic, value, key=key)
                    last[sent.partition] = sent.offset
                    del left[0]
        except (KafkaError, OSError, TimeoutError):
            await asyncio.sleep(_PAUSE_S)
        finally:
            await _close(producer)
    return last


async def end_logs(bootstrap: str, partitions: dict[str, int]) -> None:
    """Append a marker to every partition of these topics, behind which nothing comes."""
    producer = await connect(bootstrap)
    try:
        for topic, count in partitions.items():
            for partition in range(count):
                await producer.send_and_wait(
                    topic, b"", key=b"end", partition=partition, headers=[(MARKER, b"")]
                )
    finally:
        await _close(producer)
