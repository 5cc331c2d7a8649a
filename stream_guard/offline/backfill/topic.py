"""Reads posts from a range of a topic, outside any group."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stream_guard.core.errors import OperatorError
from stream_guard.kafka.ranges import RangeReader, one_span
from stream_guard.kafka.registry.assembly import open_parser
from stream_guard.offline.backfill.blocks import Part, Row, Stretch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.kafka.bounds import Bound
    from stream_guard.kafka.registry.assembly import RecordParser
    from stream_guard.offline.backfill.blocks import Block
    from stream_guard.records.post import Post
    from stream_guard.settings import Settings

__all__ = ["TopicReader", "TopicSource"]


@dataclass(slots=True, frozen=True)
class TopicSource:
    """A range of a topic.

    Attributes:
        name: the topic.
        first, last: the range; None for its beginning and its present end.
    """

    name: str
    first: Bound | None = None
    last: Bound | None = None

    def __str__(self) -> str:
        ends = [
            ""
            if bound is None
            else str(bound.offset if bound.offset is not None else bound.time_ms)
            for bound in (self.first, self.last)
        ]
        return f"topic:{self.name} {'..'.join(ends)}"

    def identity(self) -> str:
        """Return the range as it was given: its offsets are fixed when the plan is made."""
        return str(self)

    async def parts(
        self, settings: Settings, block_rows: int
    ) -> list[tuple[Part, Sequence[Stretch]]]:
        """Return each partition and its stretches of at most ``block_rows`` offsets.

        Raises:
            OperatorError: the range is empty.
            BrokerError: the broker does not answer, or there is no such topic.
        """
        async with RangeReader(settings.kafka) as reader:
            spans = await reader.spans(self.name, self.first, self.last)
        found: list[tuple[Part, Sequence[Stretch]]] = []
        for tp, span in sorted(spans.items()):
            stretches = []
            for begin in range(span.begin, span.end, block_rows):
                end = min(begin + block_rows, span.end)
                stretches.append(Stretch(begin, end, begin, end - begin))
            if stretches:
                found.append((Part(tp.topic, tp.partition, "offsets"), stretches))
        if not found:
            message = (
                f"--from, --to: topic {self.name!r} has no record in that range; "
                "give times or offsets of its records"
            )
            raise OperatorError(message)
        return found

    async def open(self, settings: Settings) -> TopicReader:
        """Return a reader of blocks. Raises BrokerError."""
        return await TopicReader.open(settings)


class TopicReader:
    """Reads blocks of topics, one at a time.

    Args:
        reader: connected.
        parser: of the records.
        stack: closes both.
    """

    def __init__(self, reader: RangeReader, parser: RecordParser, stack: AsyncExitStack) -> None:
        self._reader = reader
        self._parser = parser
        self._stack = stack
        self._turn = asyncio.Lock()  # a consumer reads one range at a time

    @classmethod
    async def open(cls, settings: Settings) -> TopicReader:
        """Connect. Raises BrokerError."""
        async with AsyncExitStack() as stack:
            reader = await stack.enter_async_context(RangeReader(settings.kafka))
            parser = await stack.enter_async_context(open_parser(settings))
            return cls(reader, parser, stack.pop_all())

    async def read(self, block: Block) -> list[Row]:
        """Return the records of a block. Raises BrokerError."""
        span = one_span(block.name, block.partition, block.begin, block.end)
        async with self._turn:
            rows = [Row(record) async for record in self._reader.read(span)]
            await self._parser.prepare([row.record for row in rows])
        return rows

    async def parse(self, row: Row) -> Post:
        """Return the post in a record. Raises RecordError."""
        post, _ = await self._parser.parse(row.record)
        return post

    async def close(self) -> None:
        """Disconnect."""
        await self._stack.aclose()
