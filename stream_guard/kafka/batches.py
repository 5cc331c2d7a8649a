"""What both kinds of producer share: how one is made and thrown away, and how records become batches.

What it must never do: leave a producer's tasks behind, or wait for one without a deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
)
from aiokafka.partitioner import murmur2

from stream_guard.kafka.security import connection_options

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stream_guard.settings import KafkaSettings
    from stream_guard.stream.in_flight import Outgoing

_log = structlog.get_logger(__name__)
_LOOK_S: Final = 0.05
_HASHED_BYTES_MAX: Final = 64 << 10
# No retry helps against these: the broker's or the topic's settings must change.
FATAL: Final = (
    ClusterAuthorizationFailedError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
)


def make_producer(
    settings: KafkaSettings,
    *,
    request_bytes_max: int = 0,
    **options: Any,  # noqa: ANN401
) -> AIOKafkaProducer:
    """Return an idempotent producer that is not started; ``options`` go to aiokafka.

    ``request_bytes_max`` is for records larger than verdicts and dead letters may be.
    """
    return AIOKafkaProducer(
        acks="all",
        enable_idempotence=True,
        compression_type=None if settings.compression_type == "none" else settings.compression_type,
        max_batch_size=settings.batch_bytes_max,
        max_request_size=max(
            2 * settings.batch_bytes_max, 2 * settings.dead_letter_bytes_max, request_bytes_max
        ),
        linger_ms=0,
        **connection_options(settings),
        **options,
    )


async def start_producer(producer: AIOKafkaProducer, settings: KafkaSettings) -> None:
    """Start a producer within ``kafka.request_timeout_ms``; one that does not start leaves nothing behind."""
    try:
        async with asyncio.timeout(settings.request_timeout_ms / 1_000):
            await producer.start()
    except BaseException:
        await discard_producer(producer, timeout_s=1)
        raise


async def discard_producer(producer: AIOKafkaProducer, *, timeout_s: float) -> None:
    """Throw a producer away with all that it has not sent; never raises.

    ``stop()`` would try to send first, and where that takes too long it leaves the sending task behind, which goes on
    trying: what was given up would be written later.
    """
    producer._closed = True  # noqa: SLF001 - or it warns that it was never closed
    sender = producer._sender  # noqa: SLF001
    task = sender.sender_task
    if task is not None:
        task.cancel()
    with contextlib.suppress(Exception):
        async with asyncio.timeout(timeout_s):
            # With its connections goes what it waits for, and so the cancelled task ends at once.
            await producer.client.close()
            await asyncio.sleep(0)  # its readers are cancelled, and end in their next turn
            while task is not None and not task.done():
                _end_metadata_wait(producer)
                await asyncio.wait([task], timeout=_LOOK_S)
    if task is not None and not task.done():
        _log.warning("producer_left_behind", timeout_s=timeout_s)
    transaction = producer._txn_manager._transaction_waiter  # noqa: SLF001
    for outcome in (task, transaction):  # looked at, so that nobody logs them as lost
        if outcome is not None and outcome.done() and not outcome.cancelled():
            outcome.exception()


def _end_metadata_wait(producer: AIOKafkaProducer) -> None:
    """Let go who waits for metadata that a closed client never gets: a failed batch does, before it is tried again."""
    waiting = producer.client._md_update_fut  # noqa: SLF001
    if waiting is not None and not waiting.done():
        waiting.set_result(False)


@lru_cache(maxsize=1 << 16)
def _hash(key: bytes) -> int:
    """Return the hash that Kafka's default partitioner takes; keys recur, and aiokafka's is pure Python."""
    if len(key) > _HASHED_BYTES_MAX:
        # A dead letter's: a megabyte would hold the event loop for half a second.
        return zlib.crc32(key) & 0x7FFFFFFF
    return int(murmur2(key)) & 0x7FFFFFFF


async def by_partition(
    producer: AIOKafkaProducer, items: Iterable[tuple[Outgoing, Any]], keyless: int
) -> list[tuple[str, int, list[Any]]]:
    """Sort items by topic and partition: that of the key's hash (Kafka's default), or that of ``keyless``."""
    counts: dict[str, int] = {}
    groups: dict[tuple[str, int], list[Any]] = {}
    for item in items:
        record = item[0]
        count = counts.get(record.topic)
        if count is None:
            count = counts[record.topic] = len(await producer.partitions_for(record.topic))
        partition = (keyless if record.key is None else _hash(record.key)) % count
        groups.setdefault((record.topic, partition), []).append(item)
    return [(topic, partition, members) for (topic, partition), members in groups.items()]


async def send_to_partition(
    producer: AIOKafkaProducer,
    topic: str,
    partition: int,
    items: list[Any],
    waiting: list[tuple[asyncio.Future[Any], list[Any]]],
) -> None:
    """Hand items over in batches as large as they may be; adds each one's future and members to ``waiting``."""
    batch = producer.create_batch()
    members: list[Any] = []
    for item in items:
        record = item[0]
        while (
            batch.append(timestamp=None, key=record.key, value=record.value, headers=record.headers)
            is None
        ):
            assert members, "an empty batch takes any record"
            waiting.append((await producer.send_batch(batch, topic, partition=partition), members))
            batch, members = producer.create_batch(), []
        members.append(item)
    batch.close()  # so that it does not linger
    waiting.append((await producer.send_batch(batch, topic, partition=partition), members))
