"""Records in, positions out: a member of a consumer group, on aiokafka.

Theory of operation. aiokafka calls its listener from its own task while our ``getmany`` may be under way, returns
records of a new assignment before the listener has heard of it, and swallows what the listener raises. So every
poll notes the *generation* that it began in; a revocation ends the generation; records of an ended one are thrown
away, and after each assignment every partition is sought to its committed position before anything is polled.
What was thrown away is thereby read again, and nothing is read twice within a generation.

What it must never do: cancel ``getmany`` (aiokafka then stops watching ``max_poll_interval_ms``), or raise inside
the listener, where nobody would hear of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import TYPE_CHECKING, Any, Final

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import IllegalStateError, KafkaError

from stream_guard.core.errors import BrokerError, SettingsError, named
from stream_guard.core.kafka_types import Partition
from stream_guard.kafka.connection_failure import find_cause
from stream_guard.kafka.permissions import forbidden_topics, principal
from stream_guard.kafka.positions import committed_positions
from stream_guard.kafka.record_decoding import tolerate_header_names
from stream_guard.kafka.security import connection_options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_guard.core.kafka_types import Record
    from stream_guard.settings import DeliverySettings, KafkaSettings
    from stream_guard.stream.ports import RebalanceListener

_log = structlog.get_logger(__name__)
# getmany() of no partitions means all of them, and getmany() of paused ones throws their prefetched records away;
# of a partition that is nobody's it takes nothing, keeps what is prefetched, and counts as a poll.
_NOBODY: Final = TopicPartition("", -1)


async def existing_topics(settings: KafkaSettings, timeout_s: float = 30) -> set[str]:
    """Return the names of the broker's topics.

    Raises:
        BrokerError: it cannot be reached.
    """
    options = connection_options(settings)
    try:
        admin = AIOKafkaAdminClient(**options)
        try:
            async with asyncio.timeout(timeout_s):
                await admin.start()
                return await _list_topics(admin, settings.retry_backoff_ms / 1_000)
        finally:
            with contextlib.suppress(KafkaError, OSError):
                await admin.close()
    except (KafkaError, OSError, TimeoutError) as error:
        cause = await find_cause(settings, options)
        place = f"{settings.bootstrap_servers} (kafka.bootstrap_servers)"
        if cause is None or not cause.answered:
            what = named(error) if cause is None else cause.text
            message = f"no Kafka broker answers at {place}: {what}"
        else:
            message = f"the Kafka brokers at {place} cannot be used: {cause.text}"
        raise BrokerError(message) from error


async def _list_topics(admin: AIOKafkaAdminClient, backoff_s: float) -> set[str]:
    """Ask until a broker answers: the client asks any of them, and one that has just died is named for some time."""
    while True:
        try:
            return set(await admin.list_topics())
        except KafkaError as error:
            if not error.retriable:
                raise
            await asyncio.sleep(backoff_s)


async def check_topics(settings: KafkaSettings) -> set[str]:
    """Return the topics that would be read now.

    Raises:
        SettingsError: neither topics nor a pattern is set, or the pattern is malformed.
        BrokerError: the broker cannot be reached, or a topic that is named does not exist.
    """
    if not settings.topics and not settings.topic_pattern:
        message = (
            "kafka.topics (STREAM_GUARD_KAFKA__TOPICS) is empty: name the topics to read, for example "
            """'["posts"]', or set kafka.topic_pattern"""
        )
        raise SettingsError(message)
    pattern = None
    if settings.topic_pattern:
        try:
            pattern = re.compile(settings.topic_pattern)
        except re.error as error:
            message = (
                f"kafka.topic_pattern: not a regular expression: {error}; for example posts\\..*"
            )
            raise SettingsError(message) from error
    there = await existing_topics(settings)
    needed = [*settings.topics, *settings.written_topics]
    missing = [topic for topic in needed if topic not in there]
    if missing:
        raise BrokerError(await _explain_missing(settings, missing))
    if pattern is not None:
        ours = set(settings.own_topics)
        return {topic for topic in there if pattern.match(topic) and topic not in ours}
    return set(settings.topics)


async def _explain_missing(settings: KafkaSettings, missing: Sequence[str]) -> str:
    """Return why topics cannot be used: access control lists hide them, or they do not exist."""
    forbidden = await forbidden_topics(settings, missing)
    if forbidden:
        return (
            f"access control lists on {settings.bootstrap_servers} hide topics: {', '.join(forbidden)}; grant Describe "
            "with Read (input) or Write (output), for example: kafka-acls.sh --add --allow-principal "
            f"{principal(settings)} --operation Read --operation Describe --topic {forbidden[0]} --bootstrap-server "
            f"{settings.bootstrap_servers}"
        )
    return (
        f"topics that do not exist on {settings.bootstrap_servers}: {', '.join(missing)}; create them, for "
        f"example: kafka-topics.sh --create --topic {missing[0]} --partitions 12 --bootstrap-server "
        f"{settings.bootstrap_servers}"
    )


class KafkaSource(ConsumerRebalanceListener):  # type: ignore[misc] # aiokafka ships no types
    """A :class:`stream_guard.stream.ports.Source` on a consumer group."""

    def __init__(self, settings: KafkaSettings, delivery: DeliverySettings) -> None:
        self._settings = settings
        self._delivery = delivery
        self._consumer: AIOKafkaConsumer | None = None
        self._listener: RebalanceListener | None = None
        self._generation = 0
        self._assigned: tuple[Partition, ...] = ()
        self._idle = asyncio.Event()
        self._idle.set()
        self._failure: BaseException | None = None

    async def start(self, listener: RebalanceListener) -> None:
        """Join the group. Raises as :meth:`stream_guard.stream.ports.Source.start`."""
        settings = self._settings
        tolerate_header_names()
        await check_topics(settings)
        self._listener = listener
        consumer = AIOKafkaConsumer(
            group_id=settings.group_id,
            group_instance_id=settings.group_instance_id,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level=settings.isolation_level,
            session_timeout_ms=settings.session_timeout_ms,
            heartbeat_interval_ms=settings.heartbeat_interval_ms,
            rebalance_timeout_ms=settings.rebalance_timeout_ms,
            max_poll_interval_ms=settings.max_poll_interval_ms,
            fetch_max_wait_ms=settings.fetch_max_wait_ms,
            fetch_min_bytes=settings.fetch_min_bytes,
            fetch_max_bytes=settings.fetch_max_bytes,
            max_partition_fetch_bytes=settings.max_partition_fetch_bytes,
            partition_assignment_strategy=(RoundRobinPartitionAssignor,),
            **connection_options(settings),
        )
        if settings.topic_pattern:
            # Verdicts must not come back as posts, however wide the pattern is.
            ours = "|".join(map(re.escape, settings.own_topics))
            consumer.subscribe(
                pattern=f"(?!(?:{ours})$)(?:{settings.topic_pattern})", listener=self
            )
        else:
            consumer.subscribe(list(settings.topics), listener=self)
        self._consumer = consumer
        try:
            async with asyncio.timeout(settings.rebalance_timeout_ms / 1_000):
                await consumer.start()
        except (KafkaError, OSError, TimeoutError) as error:
            message = f"cannot join the group {settings.group_id!r}: {named(error)}"
            raise BrokerError(message) from error

    def assigned(self) -> Sequence[Partition]:
        """Return the partitions that are ours now."""
        return self._assigned

    def ends(self) -> Mapping[Partition, int]:
        """Return where partitions end, as brokers said with the last fetch of each."""
        if self._consumer is None:
            return {}
        held = (
            self._consumer.assignment()
        )  # after a loss of which the listener is not told yet, less than ours
        ends = {}
        for partition in self._assigned:
            tp = TopicPartition(*partition)
            end = self._consumer.highwater(tp) if tp in held else None
            if end is not None:
                ends[partition] = end
        return ends

    async def poll(
        self, partitions: Sequence[Partition], *, records_max: int, timeout_ms: int
    ) -> Mapping[Partition, Sequence[Record]]:
        """Return records as soon as there are any; see :meth:`stream_guard.stream.ports.Source.poll`.

        Raises:
            BrokerError: the group or a topic is refused to us, or an assignment could not be taken up.
        """
        assert self._consumer is not None, "start() comes first"
        if self._failure is not None:
            message = f"an assignment could not be taken up: {named(self._failure)}"
            raise BrokerError(message) from self._failure
        generation = self._generation
        wanted = [TopicPartition(*partition) for partition in partitions] or (_NOBODY,)
        self._idle.clear()
        try:
            polled = await self._consumer.getmany(
                *wanted, timeout_ms=timeout_ms, max_records=max(1, records_max)
            )
        except KafkaError as error:
            if not error.retriable:
                message = f"reading failed: {named(error)}"
                raise BrokerError(message) from error
            _log.warning("poll_failed", error=type(error).__name__)
            await asyncio.sleep(self._settings.retry_backoff_ms / 1_000)
            return {}
        finally:
            self._idle.set()
        if generation != self._generation:
            return {}
        return {Partition(tp.topic, tp.partition): records for tp, records in polled.items()}

    async def commit(self, positions: Mapping[Partition, int]) -> None:
        """Commit positions within ``delivery.commit_timeout_s``. Raises BrokerError."""
        assert self._consumer is not None, "start() comes first"
        try:
            # aiokafka retries for ever, so the deadline has to be ours.
            async with asyncio.timeout(self._delivery.commit_timeout_s):
                await self._consumer.commit(
                    {TopicPartition(*p): offset for p, offset in positions.items()}
                )
        except (KafkaError, IllegalStateError, TimeoutError) as error:
            message = f"a commit failed: {named(error)}"
            raise BrokerError(message) from error

    async def stop(self) -> None:
        """Leave the group, within ``delivery.stop_timeout_s``."""
        if self._consumer is None:
            return
        try:
            async with asyncio.timeout(self._delivery.stop_timeout_s):
                await self._consumer.stop()
        except (KafkaError, OSError, TimeoutError) as error:
            _log.warning("consumer_stop_failed", error=type(error).__name__)

    # aiokafka's listener

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Aiokafka calls this before it joins the group again."""
        self._generation += 1
        self._assigned = ()
        if revoked:  # on the first join nothing is lost
            await self._tell("on_revoked", revoked)

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Aiokafka calls this once it has joined."""
        try:
            await self._idle.wait()  # a poll of the last generation; it returns within its time-out
            await self._seek_to_committed(assigned)
        except IllegalStateError:
            return  # a rebalance that came in between; the next assignment seeks again
        except Exception as error:  # noqa: BLE001 - aiokafka would swallow it: poll() raises it instead
            self._failure = error
            return
        self._assigned = tuple(sorted(Partition(tp.topic, tp.partition) for tp in assigned))
        await self._tell("on_assigned", assigned)

    async def committed(self, partition: Partition) -> int:
        """Return where reading begins; see :meth:`stream_guard.stream.ports.Source.committed`."""
        tp = TopicPartition(*partition)
        try:
            return (await self._positions({tp}))[tp]
        except (KafkaError, IllegalStateError, TimeoutError) as error:
            message = (
                f"the committed position of {partition.topic}/{partition.partition} could not be read: "
                f"{named(error)}"
            )
            raise BrokerError(message) from error

    def seek(self, partition: Partition, position: int) -> None:
        """Read on from here; see :meth:`stream_guard.stream.ports.Source.seek`."""
        assert self._consumer is not None, "start() comes first"
        with contextlib.suppress(
            IllegalStateError
        ):  # a rebalance has begun: the next assignment seeks
            self._consumer.seek(TopicPartition(*partition), position)

    async def _seek_to_committed(self, assigned: set[TopicPartition]) -> None:
        assert self._consumer is not None, "only a started consumer is assigned anything"
        for tp, position in (await self._positions(assigned)).items():
            self._consumer.seek(tp, position)

    async def _positions(self, partitions: set[TopicPartition]) -> dict[TopicPartition, int]:
        """Return committed positions, or the log's start, within ``kafka.rebalance_timeout_ms``."""
        assert self._consumer is not None, "only a started consumer is assigned anything"
        if not partitions:
            return {}
        async with asyncio.timeout(self._settings.rebalance_timeout_ms / 1_000):
            found = await committed_positions(self._consumer, self._settings.group_id, partitions)
            fresh = [tp for tp in partitions if tp not in found]
            if fresh:
                found.update(await self._consumer.beginning_offsets(fresh))
            return found

    async def _tell(self, what: str, partitions: set[Any]) -> None:
        assert self._listener is not None, "start() comes first"
        ordered = sorted(Partition(tp.topic, tp.partition) for tp in partitions)
        try:
            await getattr(self._listener, what)(ordered)
        except Exception as error:  # noqa: BLE001 - aiokafka would swallow it: poll() raises it instead
            self._failure = error
