"""Records in, positions out: a member of a consumer group, on aiokafka.

aiokafka calls its listener from its own task while our ``getmany`` may be under way. It returns records of a new
assignment before the listener has heard of it, and it swallows what the listener raises. So every poll notes the
*generation* in which it began, and a revocation ends the generation. Records of an ended generation are dropped. After
an assignment a partition is paused until :meth:`KafkaSource.seek` says where to read. So dropped records are read
again, and nothing is read twice within a generation.

The listener returns at once: aiokafka sends no heartbeat before it does. ``getmany`` is never cancelled, since aiokafka
then stops watching ``max_poll_interval_ms``.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import TYPE_CHECKING, Any, Final

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import (
    IllegalStateError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
)

from stream_guard.core.errors import BrokerError, named
from stream_guard.core.kafka_clients import start_client, stop_client
from stream_guard.core.kafka_types import Partition
from stream_guard.kafka.expiry import count_from_zero, find_gone, read_on
from stream_guard.kafka.input_topics import NO_SIDE_TOPICS, wait_for_topics
from stream_guard.kafka.permissions import explain_denial
from stream_guard.kafka.poll_bytes import poll_bytes
from stream_guard.kafka.positions import committed_positions
from stream_guard.kafka.protocol_errors import is_fenced, may_pass
from stream_guard.kafka.record_decoding import use_own_decoder
from stream_guard.kafka.security import connection_options
from stream_guard.kafka.static_membership import refuse_twins
from stream_guard.stream.ports import NO_BOUND

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from stream_guard.core.kafka_types import Record
    from stream_guard.settings import DeliverySettings, KafkaSettings, SideTopics
    from stream_guard.stream.ports import RebalanceListener
    from stream_guard.telemetry.metrics import Metrics

_log = structlog.get_logger(__name__)
# getmany() of no partitions means all of them, and getmany() of paused ones throws their prefetched records away;
# of a partition that is nobody's it takes nothing, keeps what is prefetched, and counts as a poll.
_NOBODY: Final = TopicPartition("", -1)


class KafkaSource(ConsumerRebalanceListener):  # type: ignore[misc] # aiokafka ships no types
    """A :class:`stream_guard.stream.ports.Source` on a group.

    Args:
        settings, delivery, metrics: the parts.
        also: topics to read besides those of posts.
        side: topics that other sections name; those that are read are in ``also`` as well.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        delivery: DeliverySettings,
        metrics: Metrics,
        also: Sequence[str] = (),
        side: SideTopics = NO_SIDE_TOPICS,
    ) -> None:
        self._also = tuple(also)
        self._side = side
        self._settings = settings
        self._delivery = delivery
        self._metrics = metrics
        self._consumer: AIOKafkaConsumer | None = None
        self._listener: RebalanceListener | None = None
        self._generation = 0
        self._assigned: tuple[Partition, ...] = ()
        self._sought: set[Partition] = set()
        self._failure: BaseException | None = None

    async def start(self, listener: RebalanceListener) -> None:
        """Join the group. Raises as :meth:`stream_guard.stream.ports.Source.start`."""
        settings = self._settings
        use_own_decoder()
        await wait_for_topics(settings, self._delivery.publish_timeout_s, self._side)
        self._listener = listener
        consumer = AIOKafkaConsumer(
            group_id=settings.group_id,
            group_instance_id=settings.group_instance_id,
            enable_auto_commit=False,
            client_rack=settings.client_rack,
            auto_offset_reset="none",  # a position that is out of range is reported: see expiry.py
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
            ours = "|".join(map(re.escape, (*settings.own_topics, *self._side.all)))
            also = "".join(f"(?:{re.escape(topic)})$|" for topic in self._also)
            consumer.subscribe(
                pattern=f"{also}(?!(?:{ours})$)(?:{settings.topic_pattern})", listener=self
            )
        else:
            consumer.subscribe([*settings.topics, *self._also], listener=self)
        self._consumer = consumer
        try:
            # A coordinator that is away no longer than a partition may be ends no start.
            async with asyncio.timeout(
                max(settings.rebalance_timeout_ms / 1_000, self._delivery.publish_timeout_s)
            ):
                await start_client(consumer)
            if settings.group_instance_id is not None:
                refuse_twins(consumer, settings.group_id, settings.group_instance_id)
        except (KafkaError, OSError, TimeoutError) as error:
            if is_fenced(error):
                raise self._twin() from error
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
        )  # less than ours after a loss that the listener does not know
        ends = {}
        for partition in self._assigned:
            tp = TopicPartition(*partition)
            end = self._consumer.highwater(tp) if tp in held else None
            if end is not None:
                ends[partition] = end
        return ends

    def positions(self) -> Mapping[Partition, int]:
        """Return the next offsets to read; see :meth:`stream_guard.stream.ports.Source.positions`."""
        if self._consumer is None:
            return {}
        # aiokafka's public position() waits for one, and this must not.
        subscription = self._consumer._subscription.subscription  # noqa: SLF001
        assignment = None if subscription is None else subscription.assignment
        found: dict[Partition, int] = {}
        if assignment is not None:
            for partition in self._sought:
                state = assignment.state_value(TopicPartition(*partition))
                if state is not None and state.has_valid_position:
                    found[partition] = state.position
        return found

    async def poll(
        self,
        partitions: Sequence[Partition],
        *,
        records_max: int,
        timeout_ms: int,
        bytes_max: int = NO_BOUND,
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
        sought = self._sought
        wanted = [TopicPartition(*p) for p in partitions if p in sought] or (_NOBODY,)
        try:
            with poll_bytes(bytes_max):
                polled = await self._consumer.getmany(
                    *wanted, timeout_ms=timeout_ms, max_records=max(1, records_max)
                )
        except OffsetOutOfRangeError as error:
            gone = await find_gone(self._consumer, error.args[0], self._settings)
            if generation == self._generation:
                read_on(self._consumer, gone, self._metrics)
            return {}
        except NoOffsetForPartitionError:
            # aiokafka looked for a committed position of a new assignment, before seek() said where reading begins.
            await asyncio.sleep(self._settings.retry_backoff_ms / 1_000)
            return {}
        except KafkaError as error:
            if is_fenced(error):
                raise self._twin() from error
            if not may_pass(error):
                message = f"reading failed: {explain_denial(error, group=self._settings.group_id)}"
                raise BrokerError(message) from error
            _log.warning("poll_failed", error=type(error).__name__)
            await asyncio.sleep(self._settings.retry_backoff_ms / 1_000)
            return {}
        if generation != self._generation:
            return {}
        return {Partition(tp.topic, tp.partition): records for tp, records in polled.items()}

    def _twin(self) -> BrokerError:
        return BrokerError(
            "kafka.group_instance_id (STREAM_GUARD_KAFKA__GROUP_INSTANCE_ID): another process has joined the group "
            f"{self._settings.group_id!r} as {self._settings.group_instance_id!r} and has taken over; give each "
            "process an id of its own"
        )

    async def commit(self, positions: Mapping[Partition, int]) -> None:
        """Commit positions within ``delivery.commit_timeout_s``. Raises BrokerError."""
        assert self._consumer is not None, "start() comes first"
        try:
            # aiokafka retries without end, so the deadline has to be ours.
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
        error = await stop_client(self._consumer, self._delivery.stop_timeout_s)
        if error is not None:
            _log.warning("consumer_stop_failed", error=type(error).__name__)

    # aiokafka's listener

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Aiokafka calls this before it joins the group again."""
        self._generation += 1
        self._assigned = ()
        self._sought = set()
        if revoked:  # on the first join nothing is lost
            await self._tell("on_revoked", revoked)

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Aiokafka calls this once it has joined."""
        assert self._consumer is not None, "only a started consumer is assigned anything"
        try:
            self._consumer.pause(*assigned)
        except IllegalStateError:
            return  # another rebalance has begun; the next assignment follows
        self._assigned = tuple(sorted(Partition(tp.topic, tp.partition) for tp in assigned))
        for topic in {tp.topic for tp in assigned}:
            count_from_zero(topic, self._metrics)
        await self._tell("on_assigned", assigned)

    async def committed(self, partitions: Collection[Partition]) -> Mapping[Partition, int]:
        """Return where reading begins, within ``delivery.publish_timeout_s``.

        See :meth:`stream_guard.stream.ports.Source.committed`.
        """
        assert self._consumer is not None, "start() comes first"
        wanted = [TopicPartition(*partition) for partition in partitions]
        if not wanted:
            return {}
        try:
            # A coordinator may be away as long as verdicts may wait for their broker.
            async with asyncio.timeout(self._delivery.publish_timeout_s):
                found = await committed_positions(self._consumer, self._settings.group_id, wanted)
                fresh = [tp for tp in wanted if tp not in found]
                if fresh:
                    found.update(await self._beginnings(fresh))
        except (KafkaError, IllegalStateError, TimeoutError) as error:
            first = f"{wanted[0].topic}/{wanted[0].partition}"
            message = (
                f"the committed positions of {len(wanted)} partitions ({first} first) could not be read within "
                f"{self._delivery.publish_timeout_s:g} s (delivery.publish_timeout_s): {named(error)}"
            )
            raise BrokerError(message) from error
        return {Partition(tp.topic, tp.partition): at for tp, at in found.items()}

    async def _beginnings(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        """Return where the logs of partitions begin; retried while their leaders are away."""
        assert self._consumer is not None, "start() comes first"
        while True:
            try:
                found: dict[TopicPartition, int] = await self._consumer.beginning_offsets(
                    partitions
                )
            except KafkaError as error:
                if not may_pass(error):
                    raise
                await asyncio.sleep(self._settings.retry_backoff_ms / 1_000)
            else:
                return found

    def seek(self, partition: Partition, position: int) -> None:
        """Read on from here; see :meth:`stream_guard.stream.ports.Source.seek`."""
        assert self._consumer is not None, "start() comes first"
        if partition not in self._assigned:
            return
        tp = TopicPartition(*partition)
        with contextlib.suppress(IllegalStateError):  # a rebalance has begun
            self._consumer.seek(tp, position)
            self._consumer.resume(tp)
            self._sought.add(partition)

    async def _tell(self, what: str, partitions: set[Any]) -> None:
        assert self._listener is not None, "start() comes first"
        ordered = sorted(Partition(tp.topic, tp.partition) for tp in partitions)
        try:
            await getattr(self._listener, what)(ordered)
        except Exception as error:  # noqa: BLE001 - aiokafka would swallow it: poll() raises it instead
            self._failure = error
