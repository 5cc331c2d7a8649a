"""Sends one post and waits for its verdict: the shortest proof that a deployment works from end to end.

It joins no consumer group and commits nothing.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError

from stream_guard.core.errors import BrokerError, LimitError, RecordError, named
from stream_guard.core.json_pointer import JsonPointer
from stream_guard.core.kafka_clients import start_client, stop_client
from stream_guard.kafka.registry.written import open_verdicts
from stream_guard.kafka.security import connection_options
from stream_guard.kafka.topics import require_topics

if TYPE_CHECKING:
    from stream_guard.kafka.registry.written import VerdictReader
    from stream_guard.settings import PostSettings, Settings

__all__ = ["make_post", "round_trip"]


def make_post(
    settings: PostSettings, post_id: str, text: str
) -> tuple[bytes, list[tuple[str, bytes]]]:
    """Return the value and headers of a record that these settings parse as this post."""
    document: dict[str, Any] = {}
    for place, value in (
        (settings.id, post_id),
        (settings.text, text),
        (settings.author, "stream-guard-round-trip"),
    ):
        inner: dict[str, Any] = document
        *folders, name = JsonPointer(place if isinstance(place, str) else place[0]).parts
        for folder in folders:
            inner = inner.setdefault(folder, {})
        inner[name] = value
    headers: list[tuple[str, bytes]] = []
    if settings.format == "cloudevents":
        headers = [
            ("content-type", b"application/json"),
            ("ce_specversion", b"1.0"),
            ("ce_id", post_id.encode()),
            ("ce_source", b"stream-guard/round-trip"),
            ("ce_type", b"stream-guard.round-trip"),
        ]
    return orjson.dumps(document), headers


async def round_trip(
    settings: Settings, topic: str, *, post_id: str, text: str, timeout_s: float
) -> bytes:
    """Send a post to a topic and return the JSON of the first verdict about it.

    The verdict is known by the topic, partition and offset that the broker gave the post.

    Args:
        settings: ``kafka`` for the broker, ``post`` for the format of posts.
        topic: one that a running consumer reads.
        post_id: of the post.
        text: of the post.
        timeout_s: how long the verdict may take.

    Raises:
        BrokerError: the broker cannot be reached, lacks a topic, or refuses the post.
        LimitError: the post became a dead letter, or no verdict came in time.
    """
    kafka = settings.kafka
    await require_topics(kafka, topic, kafka.verdict_topic, kafka.dead_letter_topic)
    consumer = AIOKafkaConsumer(
        kafka.verdict_topic,
        kafka.dead_letter_topic,
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="latest",
        isolation_level="read_committed",
        **connection_options(kafka),
    )
    producer = AIOKafkaProducer(acks="all", enable_idempotence=True, **connection_options(kafka))
    try:
        async with asyncio.timeout(timeout_s):
            await start_client(consumer)
            # "latest" is looked up lazily, and must lie before the post.
            await asyncio.gather(*(consumer.position(p) for p in consumer.assignment()))
            await start_client(producer)
            value, headers = make_post(settings.post.of_topic(topic), post_id, text)
            sent = await producer.send_and_wait(topic, value, key=post_id.encode(), headers=headers)
            async with open_verdicts(settings) as verdicts:
                source = topic, sent.partition, sent.offset
                return await _verdict_of(consumer, verdicts, source)
    except TimeoutError:
        message = (
            f"no verdict of the post came within {timeout_s:g} s: is a consumer of {topic!r} ready, and does it write "
            f"to {kafka.verdict_topic!r}?"
        )
        raise LimitError(message) from None
    except (KafkaError, OSError) as error:
        message = f"the round trip through {topic!r} failed: {named(error)}"
        raise BrokerError(message) from error
    finally:
        for client in (producer, consumer):
            await stop_client(client)


async def _verdict_of(
    consumer: AIOKafkaConsumer, verdicts: VerdictReader, source: tuple[str, int, int]
) -> bytes:
    async for record in consumer:
        headers = dict(record.headers)
        if "sg_reason" in headers:
            if _source_of_dead_letter(headers) == source:
                reason = headers["sg_reason"].decode("utf-8", "replace")
                explained = headers.get("sg_message", b"").decode("utf-8", "replace")
                message = f"the post became a dead letter: {reason}: {explained}"
                raise LimitError(message)
        elif record.value is not None:
            try:
                verdict = await verdicts.read(record.value)
                found = verdict["source"]
                place = found["topic"], found["partition"], found["offset"]
            except (orjson.JSONDecodeError, RecordError, KeyError, TypeError):
                continue  # another program's record
            if place == source:
                return orjson.dumps(verdict)
    raise AssertionError("the consumer never ends by itself")  # pragma: no cover


def _source_of_dead_letter(headers: dict[str, bytes]) -> tuple[str, int, int]:
    return (
        headers["sg_topic"].decode("utf-8", "replace"),
        int(headers["sg_partition"]),
        int(headers["sg_offset"]),
    )
