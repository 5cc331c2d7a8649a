"""Follows how far another consumer group has read a topic: its committed positions, and the topic's ends.

It only asks: it never joins the group. A broker that is away leaves the last known positions as they are.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import GroupAuthorizationFailedError, KafkaError, TopicAuthorizationFailedError

from stream_guard.core.clock import SystemClock
from stream_guard.core.errors import BrokerError, named
from stream_guard.core.kafka_clients import start_client, stop_client
from stream_guard.kafka.positions import committed_positions
from stream_guard.kafka.security import connection_options

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from stream_guard.core.clock import Clock
    from stream_guard.core.kafka_types import Partition
    from stream_guard.settings import DeliverySettings, KafkaSettings, Settings

__all__ = ["GroupPosition", "Reading", "read_once"]

_log = structlog.get_logger(__name__)
INTERVAL_S: Final = 2.0
_FORBIDDEN: Final = (GroupAuthorizationFailedError, TopicAuthorizationFailedError)


class Reading:
    """What is known of the other group. Pure.

    Attributes:
        positions: by partition, the next offset that the group has to read; none for partitions that it never read.
        lag_records: offsets that it has not committed; None before the first answer.
        moved_s: when it last had nothing to read, or committed something; on the monotonic clock.
    """

    def __init__(self, now_s: float) -> None:
        self.positions: dict[int, int] = {}
        self.lag_records: int | None = None
        self.moved_s = now_s

    def update(
        self,
        committed: Mapping[int, int],
        begins: Mapping[int, int],
        ends: Mapping[int, int],
        now_s: float,
    ) -> None:
        """Take an answer: offsets by the number of the partition."""
        lag = sum(
            max(0, end - max(begins[number], committed.get(number, 0)))
            for number, end in ends.items()
        )
        if not lag or any(at > self.positions.get(number, 0) for number, at in committed.items()):
            self.moved_s = now_s
        self.positions.update(committed)
        self.lag_records = lag

    def wait_s(self, now_s: float) -> float:
        """Return for how long something has waited while the group committed nothing, in s; 0 where nothing waits."""
        return max(0.0, now_s - self.moved_s) if self.lag_records else 0.0


class GroupPosition:
    """Asks for the positions again and again.

    Args:
        kafka, delivery: the broker and the deadlines.
        topic, group: whose positions.
        show: called with each reading.
        clock: tells the time.

    Attributes:
        asked: whether the first question has an answer, or has failed.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        delivery: DeliverySettings,
        topic: str,
        group: str,
        *,
        show: Callable[[Reading], None],
        clock: Clock,
    ) -> None:
        self._kafka = kafka
        self._delivery = delivery
        self._topic = topic
        self._group = group
        self._show = show
        self._clock = clock
        self._reading = Reading(clock.monotonic_s())
        self.asked = False
        self._consumer: Any = None  # aiokafka ships no types

    def position(self, partition: Partition) -> int | None:
        """Return the next offset that the group has to read; None where it is unknown."""
        return self._reading.positions.get(partition.partition)

    async def run(self) -> BaseException:
        """Ask until cancelled; return the error after which nobody may ask again."""
        while True:
            try:
                async with asyncio.timeout(self._kafka.request_timeout_ms / 1_000):
                    await self._ask()
            except _FORBIDDEN as error:
                return self._refusal(error)
            except (KafkaError, OSError, TimeoutError) as error:
                _log.warning("escalation_group_not_read", group=self._group, error=named(error))
                await self.close()
            self.asked = True
            self._show(self._reading)
            await asyncio.sleep(INTERVAL_S)

    def _refusal(self, error: BaseException) -> BrokerError:
        return BrokerError(
            f"the positions of the group {self._group!r} (cascade.escalation_group) cannot be read: {named(error)}; "
            f"grant Describe on the group and on the topic {self._topic!r}"
        )

    async def once(self) -> Reading:
        """Ask once, and close the connection. Raises BrokerError."""
        try:
            async with asyncio.timeout(self._kafka.request_timeout_ms / 1_000):
                await self._ask()
        except (KafkaError, OSError, TimeoutError) as error:
            raise self._refusal(error) from error
        finally:
            await self.close()
        return self._reading

    async def _ask(self) -> None:
        if self._consumer is None:
            consumer = AIOKafkaConsumer(
                group_id=self._group,
                enable_auto_commit=False,
                isolation_level="read_committed",
                **connection_options(self._kafka),
            )
            try:
                await start_client(consumer)
            except BaseException:
                await stop_client(consumer, self._delivery.stop_timeout_s)
                raise
            self._consumer = consumer
        cluster = await self._consumer._client.fetch_all_metadata()  # noqa: SLF001 - of a topic that is not created by asking
        numbers = sorted(cluster.partitions_for_topic(self._topic) or ())
        parts = [TopicPartition(self._topic, number) for number in numbers]
        if not parts:
            return
        # The positions first: what comes after them only makes the lag larger. One that is too old does no harm, and a
        # group that writes transactions all the time has hardly a moment without one.
        committed = await committed_positions(self._consumer, self._group, parts, stable=False)
        begins = await self._consumer.beginning_offsets(parts)
        ends = await self._consumer.end_offsets(parts)
        self._reading.update(
            {tp.partition: at for tp, at in committed.items()},
            {tp.partition: at for tp, at in begins.items()},
            {tp.partition: at for tp, at in ends.items()},
            self._clock.monotonic_s(),
        )

    async def close(self) -> None:
        """Close the connection, within ``delivery.stop_timeout_s``."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await stop_client(consumer, self._delivery.stop_timeout_s)


async def read_once(settings: Settings) -> Reading | None:
    """Return how far behind ``cascade.escalation_group`` is; None where it or the topic is not set.

    Raises:
        BrokerError: the broker does not say it.
    """
    topic, group = settings.cascade.escalation_topic, settings.cascade.escalation_group
    if topic is None or group is None:
        return None
    position = GroupPosition(
        settings.kafka,
        settings.delivery,
        topic,
        group,
        show=lambda _reading: None,
        clock=SystemClock(),
    )
    return await position.once()
