"""Shared by both kinds of producer: how one is made and discarded, and how records become batches.

A discarded producer leaves no task behind, and every wait has a deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from collections import deque
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeVar

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    InvalidTopicError,
    MessageSizeTooLargeError,
    PolicyViolationError,
    RecordListTooLargeError,
    RecordTooLargeError,
    TopicAuthorizationFailedError,
    UnsupportedForMessageFormatError,
)
from aiokafka.partitioner import murmur2

from stream_guard.core.errors import BrokerError, named
from stream_guard.core.kafka_clients import start_client
from stream_guard.kafka.protocol_errors import InvalidRecordError
from stream_guard.kafka.security import connection_options

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from aiokafka.producer.message_accumulator import BatchBuilder

    from stream_guard.settings import KafkaSettings
    from stream_guard.stream.in_flight import Outgoing

_Item = TypeVar("_Item", bound="tuple[Outgoing, Any]")
_log = structlog.get_logger(__name__)
_LOOK_S: Final = 0.05
_HASHED_BYTES_MAX: Final = 64 << 10
# A batch is over the topic's max.message.bytes, or its one record is.
TOO_LARGE: Final = (MessageSizeTooLargeError, RecordListTooLargeError, RecordTooLargeError)
# No retry helps against these: the broker's or the topic's settings must change.
FATAL: Final = (
    ClusterAuthorizationFailedError,
    InvalidRecordError,
    InvalidTopicError,
    PolicyViolationError,
    TopicAuthorizationFailedError,
    UnsupportedForMessageFormatError,
    *TOO_LARGE,
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
            await start_client(producer)
    except BaseException:
        await discard_producer(producer, timeout_s=1)
        raise


async def discard_producer(producer: AIOKafkaProducer, *, timeout_s: float) -> None:
    """Throw a producer away with all that it has not sent; never raises.

    ``stop()`` would try to send first, and where that takes too long it leaves the sending task behind, which goes on
    trying: it would write records that were given up.
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


def partition_of(key: bytes | None, keyless: int, count: int) -> int:
    """Return a record's partition of ``count``: that of its key's hash (Kafka's default), or that of ``keyless``."""
    return (keyless if key is None else _hash(key)) % count


async def by_partition(
    producer: AIOKafkaProducer, outgoing: Iterable[Outgoing], keyless: int
) -> list[tuple[str, int, deque[tuple[Outgoing, None]]]]:
    """Sort records by topic and partition."""
    counts: dict[str, int] = {}
    groups: dict[tuple[str, int], deque[tuple[Outgoing, None]]] = {}
    for record in outgoing:
        count = counts.get(record.topic)
        if count is None:
            count = counts[record.topic] = len(await producer.partitions_for(record.topic))
        place = record.topic, partition_of(record.key, keyless, count)
        groups.setdefault(place, deque()).append((record, None))
    return [(topic, partition, members) for (topic, partition), members in groups.items()]


def fill_batch(
    batch: BatchBuilder, queue: deque[_Item], alone: Collection[Outgoing] = ()
) -> list[_Item]:
    """Move records from a queue's head into a batch, as many as it takes; close it, and return what moved.

    Each record in ``alone`` gets a batch of its own.
    """
    members: list[_Item] = []
    while queue:
        record = queue[0][0]
        if alone and members and (record in alone or members[-1][0] in alone):
            break
        if (
            batch.append(timestamp=None, key=record.key, value=record.value, headers=record.headers)
            is None
        ):
            assert members, "an empty batch takes any record"
            break
        members.append(queue.popleft())
    batch.close()  # so that it does not linger
    return members


def shrink_refused(record: Outgoing, error: BaseException) -> None:
    """Make a record smaller that its topic refused, alone in its batch, as too large.

    Raises:
        BrokerError: it has no smaller form, or that was refused as well.
    """
    size_bytes = len(record.key or b"") + len(record.value or b"")
    if record.shrink():
        _log.warning("record_cut_for_topic", topic=record.topic, size_bytes=size_bytes)
        return
    message = (
        f"{record.topic}: the broker refuses a record of {size_bytes} bytes (key and value) as larger than the topic's "
        f"max.message.bytes: {named(error)}; raise max.message.bytes of {record.topic}, for dead letters above "
        "kafka.dead_letter_bytes_max (STREAM_GUARD_KAFKA__DEAD_LETTER_BYTES_MAX)"
    )
    raise BrokerError(message) from error
