"""Writes a backfill's parts to a topic in order: each part, and the position after it, in one transaction.

The position is that of a group of the backfill's own. So a run that continues begins behind the last part that is in
the topic, and a run that was replaced can write no more. Each part is in the topic once, whatever was killed.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, cast

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from stream_guard.core.backoff import pause_s
from stream_guard.core.errors import BrokerError, DoubtError, named
from stream_guard.core.kafka_clients import start_client, stop_client
from stream_guard.core.kafka_types import Partition
from stream_guard.kafka.positions import committed_positions
from stream_guard.kafka.registry.output import open_topic_output
from stream_guard.kafka.security import connection_options
from stream_guard.kafka.topics import require_topics
from stream_guard.kafka.transactions import KafkaTransactor
from stream_guard.records.verdict_event import VerdictEvents, smaller_verdict
from stream_guard.stream.in_flight import EVENT, Outgoing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.kafka.transactions import KafkaSession
    from stream_guard.records.avro_output import AvroOutput
    from stream_guard.settings import Settings
    from stream_guard.stream.in_flight import InFlightRecord

__all__ = ["HEADER", "Keyed", "PartWriter"]

HEADER: Final = "sg_backfill"
"""The header that names the backfill, in each record that it writes."""


class Keyed(NamedTuple):
    """A verdict, and the key of the record that it is about; None where that has none."""

    verdict: dict[str, Any]
    key: bytes | None


@dataclass(slots=True, frozen=True)
class _Place:
    offset: int


@dataclass(slots=True, frozen=True)
class _Origin:
    """All that a transactor reads of the record behind an output."""

    record: _Place


class PartWriter:
    """Writes parts; an async context manager.

    Args:
        settings: all sections; ``kafka``, ``delivery``, ``output`` and ``registry`` are used.
        topic: where to; it must exist.
        run: id of the backfill; two runs of one backfill have the same.

    Raises:
        BrokerError: on entering, the broker cannot be reached, has no such topic, or refuses the group.
    """

    def __init__(self, settings: Settings, topic: str, run: str) -> None:
        self._settings = settings
        self.group = f"{settings.kafka.group_id}-backfill-{run}"
        kafka = settings.kafka.model_copy(update={"group_id": self.group})
        self._kafka = kafka
        self._transactor = KafkaTransactor(kafka, settings.delivery)
        self._partition = Partition(topic, 0)
        self._header = (HEADER, run.encode())
        self._traceparent = f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-00"
        self._session: KafkaSession | None = None
        self._avro: AvroOutput | None = None

    async def __aenter__(self) -> Self:
        topic = self._partition.topic
        await require_topics(self._kafka, topic, named_by="--out")
        self._avro = await open_topic_output(self._settings, topic)
        self._session = await self._transactor.claim(self._partition)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def position(self) -> int:
        """Return how many parts are in the topic. Raises BrokerError."""
        consumer = AIOKafkaConsumer(
            group_id=self.group, enable_auto_commit=False, **connection_options(self._kafka)
        )
        tp = TopicPartition(*self._partition)
        try:
            async with asyncio.timeout(self._kafka.request_timeout_ms / 1_000):
                await start_client(consumer)
                found = await committed_positions(consumer, self.group, [tp])
        except (KafkaError, OSError, TimeoutError) as error:
            message = f"the position of the group {self.group!r} cannot be read: {named(error)}"
            raise BrokerError(message) from error
        finally:
            await stop_client(consumer, self._settings.delivery.stop_timeout_s)
        return found.get(tp, 0)

    async def write(self, index: int, verdicts: Sequence[Keyed]) -> None:
        """Write part ``index``; return when it is in the topic.

        After a doubt the topic is asked whether it has the part.

        Raises:
            BrokerError: it cannot be written within ``delivery.publish_timeout_s``, or another run has replaced this.
        """
        began_s = time.monotonic()
        patience_s = self._settings.delivery.publish_timeout_s
        for failures in range(1 << 30):
            try:
                if self._session is None:
                    self._session = await self._transactor.claim(self._partition)
                    if await self.position() > index:
                        return
                await self._session.write(self._outgoing(verdicts), index + 1)
            except DoubtError as error:
                session, self._session = self._session, None
                if session is not None:
                    await session.close()
                if error.cause == "fenced":
                    message = f"another run of this backfill writes to {self._partition.topic!r}; let that one go on"
                    raise BrokerError(message) from error
                if time.monotonic() - began_s > patience_s:
                    message = f"{error} (delivery.publish_timeout_s); run the same command again, which continues"
                    raise BrokerError(message) from error
                await asyncio.sleep(pause_s(failures))
            else:
                return

    def _outgoing(self, verdicts: Sequence[Keyed]) -> list[Outgoing]:
        now_ns = time.time_ns()
        events = VerdictEvents(now_ns // 1_000_000, self._kafka.cloudevents_mode)
        outgoing = []
        for number, (verdict, key) in enumerate(verdicts):
            verdict["timing"]["published"] = now_ns // 1_000_000
            value, headers = events.encode(verdict, self._traceparent, self._avro)
            origin = cast("InFlightRecord", _Origin(_Place(number)))
            one = Outgoing(
                self._partition.topic,
                verdict["content"]["id"].encode() if key is None else key,
                value,
                [*headers, self._header],
                origin,
                EVENT,
                now_ns,
            )
            one.smaller = (
                smaller_verdict if self._avro is None else partial(self._avro.smaller_verdict)
            )
            outgoing.append(one)
        return outgoing
