"""Reads the dead-letter topic from its beginning to the end of its committed records, outside any group.

The end is fixed when it is asked for.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from stream_guard.core.errors import EvidenceError
from stream_guard.kafka.ranges import Progress, RangeReader, Span, ignore_progress
from stream_guard.kafka.registry.written import OutputSchemas
from stream_guard.kafka.topics import require_topics
from stream_guard.records.dead_letter import (
    DeadLetter,
    DeadLetterFilter,
    needs_schema,
    read_dead_letter,
    replayed_id,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from aiokafka import TopicPartition

    from stream_guard.core.kafka_types import Record
    from stream_guard.kafka.ranges import Spans
    from stream_guard.settings import Settings


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
        settings: the broker and the topic, and the registry of dead letters in Avro.
        progress: called with the offsets read and their total.

    Raises:
        BrokerError: on entering, the broker cannot be reached or has no such topic; later, it or the registry does not
            answer.
        SettingsError: a dead letter is Avro, and ``registry.url`` is not set.
    """

    def __init__(self, settings: Settings, progress: Progress = ignore_progress) -> None:
        self._settings = settings.kafka
        self._topic = settings.kafka.dead_letter_topic
        self._reader = RangeReader(settings.kafka, progress)
        self._schemas = OutputSchemas(settings)
        self._partitions: list[TopicPartition] = []

    async def __aenter__(self) -> Self:
        await require_topics(self._settings, self._topic, named_by="kafka.dead_letter_topic")
        await self._reader.__aenter__()
        try:
            self._partitions = await self._reader.partitions(self._topic)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._schemas.close()
        await self._reader.__aexit__()

    async def ends(self) -> Mapping[TopicPartition, int]:
        """Return where each partition's committed records end now."""
        _, ends = await self._reader.limits(self._partitions)
        return ends

    async def whole(self) -> Spans:
        """Return the range of the topic's current records."""
        return await self._reader.whole(self._topic)

    async def read(self, ends: Mapping[TopicPartition, int]) -> AsyncIterator[Record]:
        """Yield every record below these ends, in offset order within each partition."""
        begins, _ = await self._reader.limits(self._partitions)
        spans = {tp: Span(begins[tp], max(begins[tp], ends[tp])) for tp in self._partitions}
        async for record in self.read_spans(spans):
            yield record

    async def read_spans(self, spans: Spans) -> AsyncIterator[Record]:
        """Yield the records of a range of the topic, in offset order within each partition."""
        async for record in self._reader.read(spans):
            yield record

    async def letters(self, ends: Mapping[TopicPartition, int]) -> AsyncIterator[DeadLetter]:
        """Yield every dead letter below these ends."""
        async for record in self.read(ends):
            letter = await self.letter(record)
            if letter is not None:
                yield letter

    async def at(self, partition: int, offset: int) -> DeadLetter | None:
        """Return the dead letter at a place of the topic; None where there is none."""
        try:
            record = await self._reader.at(self._topic, partition, offset)
        except EvidenceError:
            return None
        return await self.letter(record)

    async def letter(self, record: Record) -> DeadLetter | None:
        """Return the dead letter in a record of the topic; None where it is none."""
        if needs_schema(record):
            await self._schemas.prepare(
                record.value,
                f"the dead letter at {record.topic}/{record.partition}/{record.offset}",
            )
        return read_dead_letter(record, self._schemas.known)


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
        letter = await reader.letter(record)
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
