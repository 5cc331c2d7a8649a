"""Reading a range of a topic leaves room for everything else in the process."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from stream_guard.kafka.ranges import RangeReader, one_span
from stream_guard.settings import KafkaSettings
from stream_guard.testing import MemoryRecord

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer, TopicPartition

RECORDS = 2_500


class Buffered:
    """A consumer that has fetched everything, so that none of its methods waits."""

    def __init__(self) -> None:
        self.at = 0

    def assign(self, partitions: list[TopicPartition]) -> None:
        """Do nothing."""

    def seek(self, _partition: TopicPartition, offset: int) -> None:
        self.at = offset

    async def position(self, _partition: TopicPartition) -> int:
        return self.at

    async def getmany(
        self, partition: TopicPartition, *, timeout_ms: int, max_records: int
    ) -> dict[TopicPartition, list[MemoryRecord]]:
        assert timeout_ms > 0
        first, self.at = self.at, min(self.at + max_records, RECORDS)
        return {
            partition: [
                MemoryRecord("t", 0, offset, 0, b"", b"", []) for offset in range(first, self.at)
            ]
        }


async def test_others_have_their_turn_while_buffered_records_are_read() -> None:
    reader = RangeReader(KafkaSettings())
    reader._consumer = cast("AIOKafkaConsumer", Buffered())
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    offsets = [each.offset async for each in reader.read(one_span("t", 0, 0, RECORDS))]
    task.cancel()
    assert offsets == list(range(RECORDS))
    assert turns >= 4
