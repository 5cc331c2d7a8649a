"""Brings the projection up to the end of its topics, and reads the text of posts where they are.

It joins no group and commits nothing to Kafka: the database has the positions.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from stream_guard.core.errors import EvidenceError, RecordError, SettingsError
from stream_guard.core.kafka_types import Partition
from stream_guard.kafka.input_topics import existing_topics
from stream_guard.kafka.ranges import RangeReader, Span, ignore_progress
from stream_guard.kafka.registry.assembly import open_parser
from stream_guard.kafka.registry.written import open_verdicts
from stream_guard.settings import env_name

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from stream_guard.core.kafka_types import Record
    from stream_guard.kafka.ranges import Progress, Spans
    from stream_guard.kafka.registry.assembly import RecordParser
    from stream_guard.kafka.registry.written import VerdictReader
    from stream_guard.offline.review.projection import Projection
    from stream_guard.records.post import Post
    from stream_guard.settings import KafkaSettings, Settings

_BATCH_RECORDS_MAX: Final = 500


def topics_of(settings: KafkaSettings) -> tuple[str, ...]:
    """Return the topics of the projection.

    Raises:
        SettingsError: ``kafka.review_topic`` is not set.
    """
    if settings.review_topic is None:
        message = (
            f"kafka.review_topic ({env_name('kafka', 'review_topic')}) is not set, so there is no review queue; "
            "set it to the service's value, such as stream-guard.review"
        )
        raise SettingsError(message)
    return (settings.review_topic, settings.decision_topic, settings.verdict_topic)


async def catch_up(
    settings: Settings, projection: Projection, progress: Progress = ignore_progress
) -> int:
    """Apply everything between the projection's positions and the current ends; return the number of records.

    Raises:
        SettingsError: there is no review topic; or a verdict is Avro, and ``registry.url`` is not set.
        BrokerError: the broker or the schema registry does not answer.
        EvidenceError: a position is beyond the end of its partition, so the topic is another one now.
    """
    wanted = topics_of(settings.kafka)
    there = await existing_topics(settings.kafka)
    async with RangeReader(settings.kafka, progress) as reader, open_verdicts(settings) as reading:
        return sum(
            [await _read(reader, reading, projection, topic) for topic in wanted if topic in there]
        )


async def _read(
    reader: RangeReader, reading: VerdictReader, projection: Projection, topic: str
) -> int:
    known = await asyncio.to_thread(projection.positions)
    spans: Spans = {}
    for tp, span in (await reader.whole(topic)).items():
        position = known.get((topic, tp.partition), 0)
        if position > span.end:
            message = (
                f"{topic}/{tp.partition} ends at {span.end}, and the review database has read up to {position}: the "
                "topic was made again; run stream-guard review rebuild"
            )
            raise EvidenceError(message)
        spans[tp] = Span(max(position, span.begin), span.end)
    batch: list[Record] = []
    count = 0
    async for record in reader.read(spans):
        await reading.prepare(record.value)
        batch.append(record)
        if len(batch) >= _BATCH_RECORDS_MAX:
            await asyncio.to_thread(projection.apply, batch, _read_to(batch), reading.schemas)
            count, batch = count + len(batch), []
    ends = {Partition(topic, tp.partition): span.end for tp, span in spans.items()}
    if batch or any(known.get(place) != end for place, end in ends.items()):
        await asyncio.to_thread(projection.apply, batch, ends, reading.schemas)
    return count + len(batch)


def _read_to(batch: list[Record]) -> dict[Partition, int]:
    return {Partition(r.topic, r.partition): r.offset + 1 for r in batch}


async def post_text(settings: Settings, item: Mapping[str, Any]) -> str | None:
    """Return the text of an item's post from the post's own topic; None where that no longer has it.

    Raises:
        BrokerError: the broker does not answer.
    """
    async with RangeReader(settings.kafka) as reader, open_parser(settings) as parser:
        post = await judged_post(reader, parser, item["source"], item["content"]["sha256"])
    return None if post is None else post.text


async def judged_post(
    reader: RangeReader, parser: RecordParser, source: Mapping[str, Any], sha256: str
) -> Post | None:
    """Return the post that was judged, from its own topic; None where that no longer has it.

    Args:
        reader: of the broker.
        parser: of posts.
        source: of the verdict.
        sha256: digest of the text that was judged.

    Raises:
        BrokerError: the broker does not answer.
    """
    try:
        record = await reader.at(source["topic"], source["partition"], source["offset"])
        post, _ = await parser.parse(record)
    except (EvidenceError, RecordError):
        return None
    return post if post.sha256 == sha256 else None
