"""The breaker's topic in memory."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stream_guard.testing.memory import MemoryBroker


class MemoryBreakerLog:
    """A :class:`stream_guard.stream.ports.BreakerLog` on a topic of a :class:`MemoryBroker`.

    Args:
        broker: where the topic is.
        topic: its name; it must exist.
    """

    def __init__(self, broker: MemoryBroker, topic: str = "stream-guard.breaker") -> None:
        self._broker = broker
        self._topic = topic
        self._position = 0
        self._received: Callable[[Sequence[tuple[int, bytes | None, bytes | None]]], None]
        self._reading: asyncio.Task[None] | None = None
        self._never = asyncio.Event()

    async def start(
        self, received: Callable[[Sequence[tuple[int, bytes | None, bytes | None]]], None]
    ) -> None:
        """Read what is there, and go on reading. Raises BrokerError: there is no such topic."""
        self._broker.partitions(self._topic)
        self._received = received
        self._read()
        self._reading = asyncio.create_task(self._follow(), name="memory-breaker")

    async def append(self, pairs: Sequence[tuple[bytes, bytes | None]]) -> None:
        """Write records; they are read on a later turn of the event loop."""
        for key, value in pairs:
            self._broker.produce(self._topic, value, key=key, partition=0)
        await asyncio.sleep(0)

    async def wait_failed(self) -> BaseException:
        """Wait: nothing fails."""
        await self._never.wait()
        raise AssertionError("nobody sets it")

    async def close(self, last: Sequence[tuple[bytes, bytes | None]]) -> None:
        """Write the last records, and read no more."""
        await self.append(last)
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])

    def _read(self) -> None:
        records = self._broker.records(self._topic, 0)[self._position :]
        if records:
            self._position += len(records)
            self._received([(one.offset, one.key, one.value) for one in records])

    async def _follow(self) -> None:
        while True:
            await self._broker._changed(timeout_s=1)  # noqa: SLF001 - one mechanism in two classes
            self._read()
