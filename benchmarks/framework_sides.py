"""Sides of ``benchmarks.frameworks``: FastStream and Arroyo do what the bare loop does.

Each parses, makes a constant verdict, produces, and commits once a second. ``benchmarks.pipeline --child`` runs them.
Each is written as its own documentation says, with Stream Guard's sizes of fetches and batches. Framework features
that the bare loop does not have (validation, logs, dead letters) are off.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from benchmarks.pipeline import Constant

if TYPE_CHECKING:
    from collections.abc import Mapping

    from arroyo.backends.kafka import KafkaPayload
    from arroyo.processing.strategies import ProcessingStrategy
    from arroyo.types import Commit, Message, Partition

_RECORDS_MAX = 500
_COMMIT_S = 1.0


def run(side: str, settings: Any, count: int) -> float:
    """Run a side; return records/s from the first record to the last commit."""
    if side == "arroyo":
        return _Arroyo(settings, count).run()
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_faststream(settings, count))


async def _faststream(settings: Any, count: int) -> float:
    from faststream import AckPolicy
    from faststream.kafka import KafkaBroker

    kafka = settings.kafka
    constant = await Constant.prepare(settings)
    broker = KafkaBroker(
        kafka.bootstrap_servers,
        enable_idempotence=True,
        linger_ms=kafka.linger_ms,
        max_batch_size=kafka.batch_bytes_max,
        compression_type=kafka.compression_type,
        apply_types=False,
        logger=None,
    )
    done, started, committed = 0, 0.0, time.monotonic()
    finished = asyncio.Event()

    async def handle(message: Any) -> None:
        nonlocal done, started, committed
        records = message.raw_message
        started = started or time.monotonic()
        for record in records:
            verdict, headers = constant.verdict(record.value)
            await broker.publish(
                verdict,
                topic=kafka.verdict_topic,
                key=record.key,
                headers={name: value.decode() for name, value in headers},
                no_confirm=True,
            )
        done += len(records)
        if done >= count or time.monotonic() - committed > _COMMIT_S:
            producer: Any = broker.config.producer  # FastStream's protocol leaves `flush` out
            await producer.flush()
            await message.consumer.commit()
            committed = time.monotonic()
        if done >= count:
            finished.set()

    async def whole(message: Any) -> Any:
        return (
            message  # with the records as they came, and the consumer whose commits are timed here
        )

    broker.subscriber(
        *kafka.topics,
        group_id=kafka.group_id,
        batch=True,
        max_records=_RECORDS_MAX,
        batch_timeout_ms=500,
        auto_offset_reset="earliest",
        ack_policy=AckPolicy.MANUAL,
        decoder=whole,
        fetch_max_bytes=kafka.fetch_max_bytes,
        max_partition_fetch_bytes=kafka.max_partition_fetch_bytes,
    )(handle)
    async with broker:
        await broker.start()
        await finished.wait()
        return count / (time.monotonic() - started)


class _Arroyo:
    """Consumes with Arroyo's own loop, which is of threads and librdkafka and not of asyncio."""

    def __init__(self, settings: Any, count: int) -> None:
        self._settings = settings
        self._count = count
        self._constant = asyncio.run(Constant.prepare(settings))
        self._done = 0
        self._started_s = 0.0

    def run(self) -> float:
        """Run until all is committed."""
        from arroyo.backends.kafka import KafkaConsumer, KafkaProducer
        from arroyo.backends.kafka.configuration import (
            build_kafka_consumer_configuration,
            build_kafka_producer_configuration,
        )
        from arroyo.commit import ONCE_PER_SECOND
        from arroyo.processing import StreamProcessor
        from arroyo.types import Topic

        kafka = self._settings.kafka
        servers = [kafka.bootstrap_servers]
        consumer = KafkaConsumer(
            build_kafka_consumer_configuration(
                {},
                group_id=kafka.group_id,
                auto_offset_reset="earliest",
                bootstrap_servers=servers,
                enable_auto_commit=False,
            )
        )
        self._producer = KafkaProducer(
            build_kafka_producer_configuration(
                {
                    "linger.ms": kafka.linger_ms,
                    "batch.size": kafka.batch_bytes_max,
                    "compression.type": kafka.compression_type,
                    "enable.idempotence": True,
                },
                bootstrap_servers=servers,
            ),
            use_simple_futures=True,
        )
        # A factory by its methods: Arroyo, with its base class, is not imported before it is asked for.
        factory: Any = self
        self._processor = StreamProcessor(
            consumer, Topic(kafka.topics[0]), factory, ONCE_PER_SECOND, join_timeout=60
        )
        self._processor.run()
        self._producer.close().result()
        return self._count / (time.monotonic() - self._started_s)

    def create_with_partitions(
        self, commit: Commit, partitions: Mapping[Partition, int]
    ) -> ProcessingStrategy[KafkaPayload]:
        """Return the steps: a verdict of each record, produced, and committed."""
        from arroyo.processing.strategies import CommitOffsets, Produce, RunTask
        from arroyo.types import Topic

        del partitions
        sink = Topic(self._settings.kafka.verdict_topic)
        produce: Any = Produce(self._producer, sink, CommitOffsets(commit))
        return RunTask(self._judge, produce)

    def shutdown(self) -> None:
        """Nothing is held here (part of Arroyo's interface of factories)."""

    def _judge(self, message: Message[KafkaPayload]) -> KafkaPayload:
        from arroyo.backends.kafka import KafkaPayload

        self._started_s = self._started_s or time.monotonic()
        verdict, headers = self._constant.verdict(message.payload.value)
        self._done += 1
        if self._done >= self._count:
            # It joins what is on its way, and commits, before it returns.
            self._processor.signal_shutdown()
        return KafkaPayload(message.payload.key, verdict, headers)
