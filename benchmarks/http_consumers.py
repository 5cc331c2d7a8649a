"""Consumers of ``vllm serve`` as people build them: sides of ``benchmarks.serving``.

    python -m benchmarks.http_consumers KIND URL RECORDS

``batch`` takes up to RECORDS records, posts them all with ``asyncio.gather``, waits for all, publishes, and commits.
``faststream`` does the same by FastStream's batch subscriber. ``stream`` keeps RECORDS requests at the server without
waiting for batches. It publishes each answer at once, and commits the finished head of each partition once a second.

All post token ids that were rendered before, because a template on the server would cost more. All use one pool of
kept connections by aiohttp, on uvloop, and read answers with ``json``. They are as fast as we can make them, because
Stream Guard is compared with them. They commit no record without its verdict.
"""

from __future__ import annotations

import asyncio
import json
import math
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from benchmarks.prompts import Asked, Prompts
from benchmarks.server import MODEL
from stream_guard.core.kafka_types import Partition
from stream_guard.settings import Settings, load_settings
from stream_guard.stream.offsets import PartitionOffsets

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_POLL_MS: Final = 200
_COMMIT_S: Final = 1.0
_ANSWER: Final = "<|message|>"
_VIOLATION: Final = '"violation":'


class Server:
    """The model behind HTTP."""

    def __init__(self, url: str, settings: Settings, session: aiohttp.ClientSession) -> None:
        self._url = f"{url}/v1/completions"
        self._session = session
        self._prompts = Prompts(settings, lambda sampling, _: sampling.constraint)

    async def warm_up(self) -> None:
        """Have the server compile every policy's grammar and cache its prefix."""
        for asked in self._prompts.warm_ups():
            await self._post(asked, 1)

    async def judge(self, record: Any) -> bytes:
        """Return the verdict on a record, as the bytes of a record."""
        consumed_ms = time.time_ns() // 1_000_000
        asked = self._prompts.of(record.value)
        answer = await self._post(asked, asked.tokens_max)
        judged_ms = time.time_ns() // 1_000_000
        choice = answer["choices"][0]
        decision, category, rationale = read_answer(choice["text"])
        usage = answer["usage"]
        verdict = {
            "decision": decision,
            "source": {
                "topic": record.topic,
                "partition": record.partition,
                "offset": record.offset,
                "timestamp_ms": record.timestamp,
            },
            "content": {"id": asked.post},
            "policy": {"id": asked.policy, "category": category, "rationale": rationale},
            "confidence": violation_probability(choice["logprobs"]),
            "provenance": {
                "prompt_tokens": usage["prompt_tokens"],
                "cached_tokens": 0,
                "output_tokens": usage["completion_tokens"],
                "attempts": 1,
            },
            "timing": {"consumed": consumed_ms, "judged": judged_ms, "published": judged_ms},
        }
        return orjson.dumps(verdict)

    async def _post(self, asked: Asked, tokens_max: int) -> Any:
        body = {
            "model": MODEL,
            "prompt": asked.ids,
            "max_tokens": tokens_max,
            "temperature": 0,
            # Of each token itself, as Stream Guard asks: a verdict says how likely a violation is.
            "logprobs": 0,
            "skip_special_tokens": False,
            "structured_outputs": {asked.params.kind: asked.params.value},
        }
        data = orjson.dumps(body)
        headers = {"content-type": "application/json"}
        async with self._session.post(self._url, data=data, headers=headers) as answer:
            text = await answer.read()
            if answer.status != 200:  # noqa: PLR2004 - OK
                message = f"the server answered {answer.status}: {text[:300]!r}"
                raise RuntimeError(message)
            return orjson.loads(text)


def read_answer(text: str) -> tuple[str, str | None, str | None]:
    """Return decision, category and rationale of a completion; ``undetermined`` if it has no JSON."""
    final = text.rpartition(_ANSWER)[2].partition("<|")[0]
    try:
        answer = json.loads(final)
        decision = "violates" if answer["violation"] else "safe"
    except (ValueError, KeyError, TypeError):
        return "undetermined", None, None
    return decision, answer.get("category"), answer.get("rationale")


def violation_probability(logprobs: dict[str, Any]) -> float | None:
    """Return the probability of a violation from that of the answer's digit; None if it has no digit."""
    before = ""
    for token, logprob in zip(logprobs["tokens"], logprobs["token_logprobs"], strict=True):
        if before.endswith(_VIOLATION) and token in ("0", "1"):
            chosen = math.exp(logprob)
            return chosen if token == "1" else 1.0 - chosen  # noqa: S105 - the model's
        before = (before + token)[-2 * len(_VIOLATION) :]
    return None


def make_consumer(settings: Settings) -> AIOKafkaConsumer:
    """Return a consumer with Stream Guard's own settings of fetching."""
    kafka = settings.kafka
    return AIOKafkaConsumer(
        *kafka.topics,
        bootstrap_servers=kafka.bootstrap_servers,
        group_id=kafka.group_id,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=kafka.fetch_max_wait_ms,
        fetch_max_bytes=kafka.fetch_max_bytes,
        max_partition_fetch_bytes=kafka.max_partition_fetch_bytes,
    )


def make_producer(settings: Settings) -> AIOKafkaProducer:
    """Return a producer with Stream Guard's own settings of producing."""
    kafka = settings.kafka
    return AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap_servers,
        enable_idempotence=True,
        linger_ms=kafka.linger_ms,
        max_batch_size=kafka.batch_bytes_max,
        compression_type=None if kafka.compression_type == "none" else kafka.compression_type,
    )


async def run_batches(
    settings: Settings, server: Server, records_max: int, stop: asyncio.Event
) -> None:
    """Take a batch, post all of it, wait for all, publish, commit."""
    consumer, producer = make_consumer(settings), make_producer(settings)
    await producer.start()
    await consumer.start()
    try:
        while not stop.is_set():
            polled = await consumer.getmany(timeout_ms=_POLL_MS, max_records=records_max)
            records = [record for batch in polled.values() for record in batch]
            if not records:
                continue
            verdicts = await asyncio.gather(*(server.judge(record) for record in records))
            for record, verdict in zip(records, verdicts, strict=True):
                await producer.send(settings.kafka.verdict_topic, verdict, key=record.key)
            await producer.flush()
            await consumer.commit()
    finally:
        await consumer.stop()
        await producer.stop()


class Stream:
    """Keeps the server full, and knows what may be committed."""

    def __init__(self, settings: Settings, server: Server, requests_max: int) -> None:
        self._topic = settings.kafka.verdict_topic
        self._server = server
        self._requests_max = requests_max
        self._consumer = make_consumer(settings)
        self._producer = make_producer(settings)
        self._offsets: dict[TopicPartition, PartitionOffsets] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Run until it is stopped."""
        await self._producer.start()
        await self._consumer.start()
        try:
            async with asyncio.TaskGroup() as group:
                committing = group.create_task(self._commit_regularly())
                room = asyncio.Semaphore(self._requests_max)
                while not stop.is_set():
                    await self._take(group, room)
                committing.cancel()
            await self._commit()
        finally:
            await self._consumer.stop()
            await self._producer.stop()

    async def _take(self, group: asyncio.TaskGroup, room: asyncio.Semaphore) -> None:
        polled = await self._consumer.getmany(timeout_ms=_POLL_MS, max_records=self._requests_max)
        for partition, records in polled.items():
            offsets = self._offsets.setdefault(
                partition, PartitionOffsets(Partition(*partition), 1)
            )
            offsets.receive([record.offset for record in records])
            for record in records:
                await room.acquire()
                group.create_task(self._judge(record, offsets, room))

    async def _judge(self, record: Any, offsets: PartitionOffsets, room: asyncio.Semaphore) -> None:
        try:
            verdict = await self._server.judge(record)
        finally:
            room.release()
        sent = await self._producer.send(self._topic, verdict, key=record.key)
        await sent
        offsets.finish(record.offset)

    async def _commit_regularly(self) -> None:
        while True:
            await asyncio.sleep(_COMMIT_S)
            await self._commit()

    async def _commit(self) -> None:
        positions = {
            partition: position
            for partition, offsets in self._offsets.items()
            if (position := offsets.committable()) is not None
        }
        if positions:
            await self._consumer.commit(positions)
            for partition, position in positions.items():
                self._offsets[partition].committed = position


async def run_stream(
    settings: Settings, server: Server, requests_max: int, stop: asyncio.Event
) -> None:
    """Keep the server full without waiting for batches."""
    await Stream(settings, server, requests_max).run(stop)


async def run_faststream(
    settings: Settings, server: Server, records_max: int, stop: asyncio.Event
) -> None:
    """Do as :func:`run_batches` does, by FastStream."""
    from faststream import AckPolicy
    from faststream.kafka import KafkaBroker

    kafka = settings.kafka
    # Its casts and its log would only cost time here.
    broker = KafkaBroker(
        kafka.bootstrap_servers,
        enable_idempotence=True,
        linger_ms=kafka.linger_ms,
        max_batch_size=kafka.batch_bytes_max,
        compression_type=None if kafka.compression_type == "none" else kafka.compression_type,
        apply_types=False,
        logger=None,
    )

    async def handle(records: list[Any]) -> None:
        verdicts = await asyncio.gather(*(server.judge(record) for record in records))
        await broker.publish_batch(*verdicts, topic=kafka.verdict_topic)

    # Acknowledged, which here is committed, once the handler has returned.
    broker.subscriber(
        *kafka.topics,
        group_id=kafka.group_id,
        batch=True,
        max_records=records_max,
        batch_timeout_ms=_POLL_MS,
        auto_offset_reset="earliest",
        ack_policy=AckPolicy.NACK_ON_ERROR,
        decoder=_records_of,
        fetch_max_wait_ms=kafka.fetch_max_wait_ms,
        fetch_max_bytes=kafka.fetch_max_bytes,
        max_partition_fetch_bytes=kafka.max_partition_fetch_bytes,
    )(handle)
    async with broker:
        await broker.start()
        await stop.wait()


async def _records_of(message: Any) -> list[Any]:
    """Hand on the records: they are read as all sides read them."""
    return list(message.raw_message)


KINDS: Final[dict[str, Callable[[Settings, Server, int, asyncio.Event], Awaitable[None]]]] = {
    "batch": run_batches,
    "faststream": run_faststream,
    "stream": run_stream,
}


async def run(kind: str, url: str, records_max: int) -> None:
    """Run one of them until SIGTERM."""
    settings = load_settings()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    # No more connections than requests at once, all kept; aiohttp's own bound of 100 would be one more batch.
    connector = aiohttp.TCPConnector(limit=records_max)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        server = Server(url, settings, session)
        await server.warm_up()
        await KINDS[kind](settings, server, records_max, stop)


def main() -> int:
    """Run the consumer that was named."""
    import uvloop

    kind, url, records_max = sys.argv[1:]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(kind, url, int(records_max)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
