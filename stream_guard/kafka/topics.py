"""Sends the lines of a file to a topic, and follows verdicts, for the command line."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError

from stream_guard.core.english import count_of
from stream_guard.core.errors import BrokerError, SettingsError, named
from stream_guard.core.json_pointer import JsonPointer
from stream_guard.core.kafka_clients import start_client, stop_client
from stream_guard.kafka.input_topics import existing_topics
from stream_guard.kafka.security import connection_options

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from stream_guard.settings import KafkaSettings


async def require_topics(
    settings: KafkaSettings, *topics: str, named_by: str | None = None
) -> None:
    """Raise BrokerError where one of these topics does not exist; ``named_by`` says which setting or data names it."""
    there = await existing_topics(settings, settings.request_timeout_ms / 1_000)
    missing = [topic for topic in topics if topic not in there]
    if missing:
        names = " and ".join(map(repr, missing))
        source = "" if named_by is None else f" ({named_by})"
        verb = "does" if len(missing) == 1 else "do"
        message = f"topic {names}{source} {verb} not exist on {settings.bootstrap_servers}; create it first"
        raise BrokerError(message)


async def produce_lines(settings: KafkaSettings, file: Path, topic: str, key: str) -> int:
    """Send each line of a file as a record; return how many.

    A line that is not JSON is sent as well, without a key, to show what the consumer does with it.

    Raises:
        SettingsError: the file cannot be read, or the key is not a JSON pointer.
        BrokerError: the broker cannot be reached, refuses a record, or has no such topic.
    """
    try:
        pointer = JsonPointer(key) if key else None
    except ValueError as error:
        message = f"--key: {error}"
        raise SettingsError(message) from error
    lines = _read_lines(file)
    await require_topics(settings, topic)
    producer = AIOKafkaProducer(
        acks="all", enable_idempotence=True, linger_ms=5, **connection_options(settings)
    )
    count = 0
    try:
        await start_client(producer)
        pending: set[asyncio.Future[object]] = set()
        for line in lines:
            pending.add(await producer.send(topic, line, key=_key_of(line, pointer)))
            count += 1
            if len(pending) >= 10_000:  # noqa: PLR2004 - bounds memory
                await asyncio.gather(*pending)
                pending.clear()
        await asyncio.gather(*pending)
    except (KafkaError, OSError) as error:
        message = f"sending to {topic!r} failed after {count_of(count, 'record')}: {named(error)}"
        raise BrokerError(message) from error
    finally:
        await stop_client(producer, settings.request_timeout_ms / 1_000)
    return count


def _read_lines(file: Path) -> Iterator[bytes]:
    if str(file) == "-":
        return (line for line in (raw.strip() for raw in sys.stdin.buffer) if line)
    try:
        file.open("rb").close()  # a missing file is reported first
    except OSError as error:
        message = f"{file}: {error.strerror}"
        raise SettingsError(message) from error

    def lines() -> Iterator[bytes]:
        with file.open("rb") as handle:
            yield from (line for line in (raw.strip() for raw in handle) if line)

    return lines()


def _key_of(line: bytes, pointer: JsonPointer | None) -> bytes | None:
    if pointer is None:
        return None
    try:
        value = pointer.find(orjson.loads(line))
    except orjson.JSONDecodeError:
        return None
    return None if value is None else str(value).encode("utf-8", "replace")


async def tail_verdicts(
    settings: KafkaSettings, *, from_beginning: bool, limit: int
) -> AsyncIterator[bytes]:
    """Yield verdicts' JSON as they come; outside any group, so that no position moves.

    Raises:
        BrokerError: the broker cannot be reached, or the verdict topic does not exist.
    """
    await require_topics(settings, settings.verdict_topic)
    consumer = AIOKafkaConsumer(
        settings.verdict_topic,
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest" if from_beginning else "latest",
        isolation_level="read_committed",
        **connection_options(settings),
    )
    try:
        await start_client(consumer)
        count = 0
        async for record in consumer:
            if record.value is not None:
                yield record.value
                count += 1
            if limit and count >= limit:
                return
    except (KafkaError, OSError) as error:
        message = f"reading {settings.verdict_topic!r} failed: {named(error)}"
        raise BrokerError(message) from error
    finally:
        await stop_client(consumer)
