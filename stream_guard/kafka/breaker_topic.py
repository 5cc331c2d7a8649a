"""The breaker's topic on aiokafka: one partition that every replica writes and reads to its end.

The topic is compacted, so that the newest number of each key stays. Old numbers are deleted by tombstones and, if the
topic also has ``delete``, by time: it must keep as many weeks as the baseline needs.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import (
    KafkaError,
    OffsetOutOfRangeError,
    TopicAlreadyExistsError,
    for_code,
)

from stream_guard.core.backoff import pause_s
from stream_guard.core.errors import BrokerError, SettingsError, named
from stream_guard.core.kafka_clients import start_client, stop_client
from stream_guard.kafka.archive import topic_configs
from stream_guard.kafka.batches import FATAL, discard_producer, make_producer, start_producer
from stream_guard.kafka.permissions import explain_denial
from stream_guard.kafka.record_decoding import use_own_decoder
from stream_guard.kafka.security import connection_options

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from aiokafka import AIOKafkaProducer

    from stream_guard.settings import DeliverySettings, KafkaSettings

_log = structlog.get_logger(__name__)
_REPLICAS_MAX: Final = 3
_POLL_MS: Final = 1_000
RETENTION_MS: Final = 70 * 86_400_000
"""``retention.ms`` of a created topic: the longest baseline has eight weeks."""
RETENTION_MS_MIN: Final = 2 * 86_400_000
"""The shortest ``retention.ms`` with which a day's window keeps its numbers."""
_CONFIGS: Final = {
    "cleanup.policy": "compact,delete",
    "retention.ms": str(RETENTION_MS),
    "min.cleanable.dirty.ratio": "0.1",
}


class KafkaBreakerLog:
    """A :class:`stream_guard.stream.ports.BreakerLog`."""

    def __init__(self, settings: KafkaSettings, delivery: DeliverySettings) -> None:
        self._settings = settings
        self._delivery = delivery
        self._tp = TopicPartition(settings.breaker_topic, 0)
        self._consumer: AIOKafkaConsumer | None = None
        self._producer: AIOKafkaProducer | None = None
        self._reading: asyncio.Task[None] | None = None
        self._failed: asyncio.Future[BaseException] | None = None
        self._received: Callable[[Sequence[tuple[int, bytes | None, bytes | None]]], None] = (
            lambda _: None
        )

    async def start(
        self, received: Callable[[Sequence[tuple[int, bytes | None, bytes | None]]], None]
    ) -> None:
        """See :meth:`stream_guard.stream.ports.BreakerLog.start`; within ``delivery.publish_timeout_s``."""
        self._received = received
        self._failed = asyncio.get_running_loop().create_future()
        topic = self._tp.topic
        try:
            async with asyncio.timeout(self._delivery.publish_timeout_s):
                await self._try_to_connect()
        except (KafkaError, OSError, TimeoutError) as error:
            await self._disconnect()
            message = (
                f"the breaker's topic {topic!r} (kafka.breaker_topic) cannot be read to its end: "
                f"{explain_denial(error, topic=topic) if isinstance(error, KafkaError) else named(error)}"
            )
            raise BrokerError(message) from error
        self._reading = asyncio.create_task(self._follow(), name="breaker-read")

    async def _try_to_connect(self) -> None:
        """Find or create the topic, and read it; retried, since brokers may be away, or not know a new topic yet."""
        for failures in range(1 << 30):
            try:
                await ensure_breaker_topic(self._settings)
                await self._connect()
            except (KafkaError, OSError, TimeoutError) as error:
                await self._disconnect()
                if isinstance(error, FATAL):
                    raise
                _log.warning("breaker_read_failed", error=type(error).__name__)
                await asyncio.sleep(pause_s(failures))
            else:
                return

    async def _connect(self) -> None:
        settings = self._settings
        use_own_decoder()
        self._consumer = consumer = AIOKafkaConsumer(
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            # Written without transactions: nothing to wait for.
            isolation_level="read_uncommitted",
            fetch_max_wait_ms=max(settings.fetch_max_wait_ms, 500),
            **connection_options(settings),
        )
        await start_client(consumer)
        consumer.assign([self._tp])
        begin = (await consumer.beginning_offsets([self._tp]))[self._tp]
        end = (await consumer.end_offsets([self._tp]))[self._tp]
        consumer.seek(self._tp, begin)
        while await consumer.position(self._tp) < end:
            await self._poll(consumer)
        self._producer = await self._new_producer()

    async def _new_producer(self) -> AIOKafkaProducer:
        producer = make_producer(self._settings)
        await start_producer(producer, self._settings)
        return producer

    async def _poll(self, consumer: AIOKafkaConsumer) -> None:
        polled = await consumer.getmany(self._tp, timeout_ms=_POLL_MS)
        for records in polled.values():
            self._received([(one.offset, one.key, one.value) for one in records])

    async def _follow(self) -> None:
        """Read on until cancelled; what a broker refuses for good ends it."""
        consumer = self._consumer
        assert consumer is not None, "start() connects it"
        failures = 0
        while True:
            try:
                await self._poll(consumer)
                failures = 0
            except OffsetOutOfRangeError:
                # Deleted by time, or a log that was cut: what is left is read again.
                _log.warning("breaker_topic_read_again", topic=self._tp.topic)
                with contextlib.suppress(KafkaError):
                    begin = (await consumer.beginning_offsets([self._tp]))[self._tp]
                    consumer.seek(self._tp, begin)
            except KafkaError as error:
                if isinstance(error, FATAL):
                    self._fail(error, "read")
                    return
                _log.warning("breaker_read_failed", error=type(error).__name__)
                await asyncio.sleep(pause_s(failures))
                failures += 1

    async def append(self, pairs: Sequence[tuple[bytes, bytes | None]]) -> None:
        """See :meth:`stream_guard.stream.ports.BreakerLog.append`.

        After a failure nobody knows which records were written. All are written again: their numbers are cumulative.
        """
        for failures in range(1 << 30):
            try:
                async with asyncio.timeout(self._settings.request_timeout_ms / 1_000):
                    await self._send(pairs)
            except (KafkaError, OSError, TimeoutError) as error:
                if isinstance(error, FATAL):
                    raise self._refused(error, "written") from error
                _log.warning("breaker_write_failed", error=type(error).__name__)
                await asyncio.sleep(pause_s(failures))
            else:
                return

    async def _send(self, pairs: Sequence[tuple[bytes, bytes | None]]) -> None:
        producer = self._producer
        if producer is None:
            producer = self._producer = await self._new_producer()
        try:
            sent = [
                await producer.send(self._tp.topic, value, key=key, partition=0)
                for key, value in pairs
            ]
            await asyncio.gather(*sent)
        except BaseException:
            # It may still send: an older record behind a newer one would be read as late.
            self._producer = None
            await discard_producer(producer, timeout_s=self._delivery.stop_timeout_s)
            raise

    async def wait_failed(self) -> BaseException:
        """Return the error, once there is one."""
        assert self._failed is not None, "start() comes first"
        return await asyncio.shield(self._failed)

    async def close(self, last: Sequence[tuple[bytes, bytes | None]]) -> None:
        """Write the last records and close, each within ``delivery.stop_timeout_s``."""
        if last and self._producer is not None:
            with contextlib.suppress(KafkaError, OSError, TimeoutError):
                async with asyncio.timeout(self._delivery.stop_timeout_s):
                    await self._send(last)
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])
        await self._disconnect()

    async def _disconnect(self) -> None:
        producer, self._producer = self._producer, None
        consumer, self._consumer = self._consumer, None
        if producer is not None:
            await discard_producer(producer, timeout_s=self._delivery.stop_timeout_s)
        if consumer is not None:
            await stop_client(consumer, self._delivery.stop_timeout_s)

    def _fail(self, error: KafkaError, what: str) -> None:
        assert self._failed is not None, "start() makes it"
        if not self._failed.done():
            self._failed.set_result(self._refused(error, what))

    def _refused(self, error: KafkaError, what: str) -> BrokerError:
        topic = self._tp.topic
        return BrokerError(
            f"the breaker's topic {topic!r} (kafka.breaker_topic) cannot be {what}: "
            f"{explain_denial(error, topic=topic)}"
        )


async def ensure_breaker_topic(settings: KafkaSettings) -> None:
    """Create the topic, or check an existing one as :func:`check_breaker_topic`.

    Raises:
        SettingsError: it is not compacted, or deletes numbers that still count.
        BrokerError: it cannot be created.
        KafkaError, OSError, TimeoutError: the broker does not answer.
    """
    async with _admin(settings) as admin:
        if settings.breaker_topic in await admin.list_topics():
            await _check(admin, settings)
        else:
            await _make(admin, settings)


async def check_breaker_topic(settings: KafkaSettings) -> bool:
    """Return whether the topic exists; it changes nothing.

    Raises:
        SettingsError: it is not compacted, or deletes numbers that still count.
        BrokerError: the broker does not answer.
    """
    try:
        async with _admin(settings) as admin:
            if settings.breaker_topic not in await admin.list_topics():
                return False
            await _check(admin, settings)
            return True
    except (KafkaError, OSError, TimeoutError) as error:
        message = (
            f"kafka.breaker_topic ({settings.breaker_topic!r}) cannot be examined: {named(error)}"
        )
        raise BrokerError(message) from error


@contextlib.asynccontextmanager
async def _admin(settings: KafkaSettings) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(**connection_options(settings))
    try:
        async with asyncio.timeout(settings.request_timeout_ms / 1_000):
            await start_client(admin)
            yield admin
    finally:
        await stop_client(admin)


async def _check(admin: AIOKafkaAdminClient, settings: KafkaSettings) -> None:
    topic = settings.breaker_topic
    found = await topic_configs(admin, topic, ("cleanup.policy", "retention.ms"))
    if not found:
        _log.warning("breaker_topic_not_checked", topic=topic)
        return
    policies = [one.strip() for one in found["cleanup.policy"].split(",")]
    where = f"kafka.breaker_topic (STREAM_GUARD_KAFKA__BREAKER_TOPIC): {topic!r} has"
    alter = f"kafka-configs.sh --alter --entity-type topics --entity-name {topic} --add-config"
    if "compact" not in policies:
        message = (
            f"{where} cleanup.policy={found['cleanup.policy']}, so numbers that still count would be deleted; "
            f"set it: {alter} cleanup.policy=[compact,delete],retention.ms={RETENTION_MS}"
        )
        raise SettingsError(message)
    kept_ms = int(found["retention.ms"])
    if "delete" in policies and 0 <= kept_ms < RETENTION_MS_MIN:
        message = (
            f"{where} retention.ms={kept_ms}, so a day's numbers would be deleted while they count; raise it: {alter} "
            f"retention.ms={RETENTION_MS}"
        )
        raise SettingsError(message)


async def _make(admin: AIOKafkaAdminClient, settings: KafkaSettings) -> None:
    topic = settings.breaker_topic
    brokers = len((await admin.describe_cluster())["brokers"])
    new = NewTopic(topic, 1, min(brokers, _REPLICAS_MAX), topic_configs=dict(_CONFIGS))
    made = await admin.create_topics([new])
    for _, code, *_ in made.topic_errors:
        error = for_code(code)
        if error is TopicAlreadyExistsError or not code:
            continue
        message = (
            f"kafka.breaker_topic (STREAM_GUARD_KAFKA__BREAKER_TOPIC): {topic!r} does not exist for this user and "
            f"could not be made ({error.__name__}); create it: kafka-topics.sh --create --topic {topic} --partitions "
            f"1 --config cleanup.policy=compact --bootstrap-server {settings.bootstrap_servers}, and grant Read and "
            "Write"
        )
        raise BrokerError(message)
    _log.info("breaker_topic_made", topic=topic)
