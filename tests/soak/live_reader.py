"""A reader of verdicts and dead letters while the soak runs, as a platform has one: with ``read_committed``."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from tests.soak.facts import Read
from tests.soak.posting import MARKER

if TYPE_CHECKING:
    from collections.abc import Mapping

END_S: Final = 120.0
_PAUSE_S: Final = 0.5
_NEWEST: Final = 1_000


class LiveReader:
    """Reads every partition from its beginning to its marker, and goes on where it was after an error.

    Args:
        bootstrap: of the brokers.
        partitions: how many each topic has.

    Attributes:
        reads: what it got, in its order.
        newest: the values of the last records that it got, by topic.
    """

    def __init__(self, bootstrap: str, partitions: Mapping[str, int]) -> None:
        self._bootstrap = bootstrap
        self._open = {TopicPartition(t, p) for t, count in partitions.items() for p in range(count)}
        self._next: dict[TopicPartition, int] = dict.fromkeys(self._open, 0)
        self.reads: list[Read] = []
        self.newest: dict[str, deque[bytes]] = {t: deque(maxlen=_NEWEST) for t in partitions}

    async def run(self) -> None:
        """Read until all markers have come."""
        while self._open:
            with contextlib.suppress(KafkaError, OSError, TimeoutError):
                await self._read()
            await asyncio.sleep(_PAUSE_S)

    async def _read(self) -> None:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            metadata_max_age_ms=5_000,
        )
        consumer.assign(list(self._next))
        await consumer.start()
        try:
            for place, offset in self._next.items():
                consumer.seek(place, offset)
            while self._open:
                for place, batch in (await consumer.getmany(timeout_ms=500)).items():
                    for record in batch:
                        self._next[place] = record.offset + 1
                        if any(name == MARKER for name, _ in record.headers):
                            self._open.discard(place)
                        else:
                            self.reads.append(Read(place.topic, place.partition, record.offset))
                            self.newest[place.topic].append(record.value)
        finally:
            await consumer.stop()
