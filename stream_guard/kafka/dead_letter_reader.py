"""Reads the dead-letter topic from its beginning to the end of its committed records, outside any group.

The end is fixed when it is asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from stream_guard.core.errors import BrokerError, named
from stream_guard.kafka.record_decoding import tolerate_header_names
from stream_guard.kafka.security import connection_options
from stream_guard.kafka.source import existing_topics
from stream_guard.records.dead_letter import (
    DeadLetter,
    DeadLetterFilter,
    read_dead_letter,
    replayed_id,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from stream_guard.core.kafka_types import Record
    from stream_guard.settings import KafkaSettings


@dataclass(slots=True)
class Survey:
    """The result of one reading of the topic.

    Attributes:
        reasons: counts of selected dead letters, by reason.
        chosen: by id, the place of its first whole dead letter that was not replayed: (partition, offset).
        source_topics: of those.
        replayed: ids that were replayed, of all dead letters.
        already: selected dead letters whose record was replayed.
        repeats: selected dead letters whose record has another one: a duplicate, or another policy.
        cut: selected dead letters that were cut, which cannot be replayed.
        foreign: records that are neither dead letters nor markers.
        not_input: selected dead letters that name a source topic which may not be written, by that topic.
    """

    reasons: Counter[str] = field(default_factory=Counter)
    chosen: dict[str, tuple[int, int]] = field(default_factory=dict)
    source_topics: set[str] = field(default_factory=set)
    replayed: set[str] = field(default_factory=set)
    already: int = 0
    repeats: int = 0
    cut: int = 0
    foreign: int = 0
    not_input: Counter[str] = field(default_factory=Counter)
    sent: int = 0


class DeadLetterReader:
    """Reads the dead-letter topic, outside any group; an async context manager.

    Args:
        settings: the broker and the topic.
        progress: called with the offsets read and their total.

    Raises:
        BrokerError: on entering, the broker cannot be reached or has no such topic; later, it does not answer.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        progress: Callable[[int, int], None] = lambda _done, _all: None,
    ) -> None:
        self._settings = settings
        self._topic = settings.dead_letter_topic
        self._progress = progress
        self._consumer: AIOKafkaConsumer | None = None
        self._partitions: list[TopicPartition] = []

    async def __aenter__(self) -> Self:
        tolerate_header_names()
        settings = self._settings
        await require_topics(settings, [self._topic], "kafka.dead_letter_topic")
        consumer = AIOKafkaConsumer(
            self._topic,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            fetch_max_wait_ms=settings.fetch_max_wait_ms,
            **connection_options(settings),
        )
        self._consumer = consumer
        try:
            async with self._asking():
                await consumer.start()
                numbers = consumer.partitions_for_topic(self._topic) or ()
                self._partitions = [TopicPartition(self._topic, number) for number in numbers]
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            with contextlib.suppress(KafkaError, OSError, TimeoutError):
                async with asyncio.timeout(5):
                    await consumer.stop()

    async def ends(self) -> dict[TopicPartition, int]:
        """Return the current end of each partition's committed records."""
        assert self._consumer is not None, "entered first"
        async with self._asking():
            ends: dict[TopicPartition, int] = await self._consumer.end_offsets(self._partitions)
        return ends

    async def read(self, ends: Mapping[TopicPartition, int]) -> AsyncIterator[Record]:
        """Yield every record below these ends, in offset order within each partition."""
        assert self._consumer is not None, "entered first"
        consumer = self._consumer
        async with self._asking():
            begins = await consumer.beginning_offsets(self._partitions)
        for partition, begin in begins.items():
            consumer.seek(partition, begin)
        total = sum(max(0, ends[tp] - begins[tp]) for tp in self._partitions)
        position = dict(begins)
        patience_s = self._settings.request_timeout_ms / 1_000
        moved_s = time.monotonic()
        while unread := [tp for tp in self._partitions if position[tp] < ends[tp]]:
            async with self._asking():
                polled = await consumer.getmany(*unread, timeout_ms=200, max_records=500)
                before = sum(position.values())
                for tp in unread:
                    position[tp] = await consumer.position(tp)
            for tp, records in polled.items():
                for record in records:
                    if record.offset < ends[tp]:
                        yield record
            read = sum(min(position[tp], ends[tp]) - begins[tp] for tp in self._partitions)
            self._progress(read, total)
            if sum(position.values()) != before:
                moved_s = time.monotonic()
            elif time.monotonic() - moved_s > patience_s:
                message = (
                    f"reading {self._topic!r} stopped: no record and no answer for {patience_s:g} s "
                    f"(kafka.request_timeout_ms) from {self._settings.bootstrap_servers}"
                )
                raise BrokerError(message)

    async def letters(self, ends: Mapping[TopicPartition, int]) -> AsyncIterator[DeadLetter]:
        """Yield every dead letter below these ends."""
        async for record in self.read(ends):
            letter = read_dead_letter(record)
            if letter is not None:
                yield letter

    async def at(self, partition: int, offset: int) -> DeadLetter | None:
        """Return the dead letter at a place of the topic; None if there is none."""
        assert self._consumer is not None, "entered first"
        tp = TopicPartition(self._topic, partition)
        if tp not in self._partitions:
            return None
        async with self._asking():
            begin = (await self._consumer.beginning_offsets([tp]))[tp]
        end = (await self.ends())[tp]
        if not begin <= offset < end:
            return None
        self._consumer.seek(tp, offset)
        deadline_s = time.monotonic() + self._settings.request_timeout_ms / 1_000
        while time.monotonic() < deadline_s:
            async with self._asking():
                polled = await self._consumer.getmany(tp, timeout_ms=200, max_records=1)
                for record in polled.get(tp, ()):
                    return read_dead_letter(record) if record.offset == offset else None
                if await self._consumer.position(tp) > offset:
                    return None
        raise BrokerError(f"no answer for {self._topic}/{partition}/{offset} in time")

    @contextlib.asynccontextmanager
    async def _asking(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._settings.request_timeout_ms / 1_000):
                yield
        except (KafkaError, OSError, TimeoutError) as error:
            message = (
                f"reading {self._topic!r} from {self._settings.bootstrap_servers} failed: "
                f"{named(error)}"
            )
            raise BrokerError(message) from error


async def require_topics(settings: KafkaSettings, topics: list[str], setting: str) -> None:
    """Raise BrokerError if the broker cannot be reached or lacks a topic; ``setting`` names its setting."""
    there = await existing_topics(settings, settings.request_timeout_ms / 1_000)
    missing = [topic for topic in topics if topic not in there]
    if missing:
        message = f"topics that do not exist on {settings.bootstrap_servers}: {', '.join(missing)} ({setting})"
        raise BrokerError(message)


async def survey(
    reader: DeadLetterReader,
    ends: Mapping[TopicPartition, int],
    wanted: DeadLetterFilter,
    found: Callable[[DeadLetter], None] = lambda _: None,
    may_write: Callable[[str], bool] = lambda _: True,
) -> Survey:
    """Read the topic and return the counts.

    Args:
        reader: entered.
        ends: the offsets at which to stop.
        wanted: the filter.
        found: called with each selected dead letter.
        may_write: returns whether records may go back to a topic. A dead letter's headers can name any topic.
    """
    seen = Survey()
    first: dict[str, tuple[int, int, str]] = {}
    whole = Counter[str]()
    async for record in reader.read(ends):
        letter = read_dead_letter(record)
        if letter is None:
            done = replayed_id(record)
            seen.foreign += done is None
            if done is not None:
                seen.replayed.add(done)
            continue
        if not wanted.takes(letter):
            continue
        seen.reasons[letter.reason] += 1
        found(letter)
        if letter.cut:
            seen.cut += 1
            continue
        whole[letter.id] += 1
        first.setdefault(letter.id, (letter.partition, letter.offset, letter.source_topic))
    for letter_id, (partition, offset, topic) in first.items():
        if letter_id in seen.replayed:
            seen.already += whole[letter_id]
            continue
        if not may_write(topic):
            seen.not_input[topic] += whole[letter_id]
            continue
        seen.repeats += whole[letter_id] - 1
        seen.chosen[letter_id] = (partition, offset)
        seen.source_topics.add(topic)
    return seen
