"""What to do when a partition's log no longer has the position to read from: say how much is gone, and read on.

aiokafka's own reset is silent. So the consumer has none: a fetch out of range raises, and the answer is given here.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog
from aiokafka.errors import IllegalStateError, KafkaError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aiokafka import AIOKafkaConsumer, TopicPartition

    from stream_guard.settings import KafkaSettings
    from stream_guard.telemetry.metrics import Metrics

__all__ = ["Gone", "count_from_zero", "find_gone", "read_on"]

_log = structlog.get_logger(__name__)
_RETENTION: Final = "retention"
_PAST_END: Final = "past_end"


class Gone(NamedTuple):
    """Offsets that a partition's log no longer has.

    Attributes:
        partition: whose log.
        cause: ``retention`` if the log begins after the position, ``past_end`` if it ends before it.
        records: offsets between the position and the log.
        position: the next offset that was to be read.
        begin: where the log begins, and reading goes on.
    """

    partition: TopicPartition
    cause: str
    records: int
    position: int
    begin: int


def count_from_zero(topic: str, metrics: Metrics) -> None:
    """Show a topic's counters at 0, or Prometheus would not see their first increase."""
    for cause in (_RETENTION, _PAST_END):
        metrics.expired.labels(topic, cause)


async def find_gone(
    consumer: AIOKafkaConsumer, positions: Mapping[TopicPartition, int], settings: KafkaSettings
) -> list[Gone]:
    """Return what is gone at positions out of range, within ``kafka.request_timeout_ms``.

    A partition whose leader does not answer is left out: its next fetch is out of range again.
    """
    try:
        async with asyncio.timeout(settings.request_timeout_ms / 1_000):
            begins = await consumer.beginning_offsets(list(positions))
            ends = await consumer.end_offsets(list(positions))
    except (KafkaError, TimeoutError) as error:
        _log.warning("poll_failed", error=type(error).__name__)
        return []
    found = []
    for partition, position in positions.items():
        begin, end = begins[partition], ends[partition]
        if position < begin:
            found.append(Gone(partition, _RETENTION, begin - position, position, begin))
        elif position > end:
            found.append(Gone(partition, _PAST_END, position - end, position, begin))
    return found


def read_on(consumer: AIOKafkaConsumer, gone: Sequence[Gone], metrics: Metrics) -> None:
    """Count and log what is gone, and read from where each log begins."""
    for one in gone:
        metrics.expired.labels(one.partition.topic, one.cause).inc(one.records)
        _log.warning(
            "records_expired",
            partition=f"{one.partition.topic}/{one.partition.partition}",
            cause=one.cause,
            records=one.records,
            position=one.position,
            now=one.begin,
        )
        with contextlib.suppress(IllegalStateError):  # a rebalance has begun
            consumer.seek(one.partition, one.begin)
