"""A publisher to the broker in memory."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from stream_guard.core.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stream_guard.stream.in_flight import Outgoing
    from stream_guard.testing.memory import MemoryBroker


class MemoryPublisher:
    """A :class:`stream_guard.stream.ports.Publisher` that writes to a :class:`MemoryBroker`.

    Args:
        broker: where to.
        manual: records wait in ``pending`` until :meth:`acknowledge`; otherwise they are written and acknowledged
            on the event loop's next turn.

    Attributes:
        pending: queued and not acknowledged, in order.
    """

    def __init__(self, broker: MemoryBroker, *, manual: bool = False) -> None:
        self.pending: list[Outgoing] = []
        self._broker = broker
        self._manual = manual
        self._callbacks: dict[int, Callable[[Sequence[Outgoing]], None]] = {}
        self._empty = asyncio.Event()
        self._empty.set()
        self._failed = asyncio.Event()
        self._failure: BaseException | None = None

    async def start(self) -> None:
        """Do nothing: there is nothing to connect to."""

    def publish(
        self, outgoing: Sequence[Outgoing], acknowledged: Callable[[Sequence[Outgoing]], None]
    ) -> None:
        """Queue records; see :meth:`stream_guard.stream.ports.Publisher.publish`."""
        if not outgoing:
            return
        self.pending.extend(outgoing)
        self._callbacks.update((id(record), acknowledged) for record in outgoing)
        self._empty.clear()
        if not self._manual:
            asyncio.get_running_loop().call_soon(self._write, list(outgoing))

    def acknowledge(self, outgoing: Sequence[Outgoing] | None = None) -> None:
        """Write these pending records, or all, to their topics, and acknowledge them in one list per caller."""
        self._write([*self.pending] if outgoing is None else outgoing)

    def fail(self, error: BaseException) -> None:
        """Send nothing more; :meth:`wait_failed` returns the error."""
        self._failure = error
        self._failed.set()

    async def flush(self) -> None:
        """Return once everything queued is acknowledged."""
        await self._empty.wait()

    async def wait_failed(self) -> BaseException:
        """Return the error, once there is one."""
        await self._failed.wait()
        assert self._failure is not None, "fail() sets both"
        return self._failure

    async def stop(self) -> None:
        """Do nothing: what is pending stays so."""

    def _write(self, outgoing: Sequence[Outgoing]) -> None:
        by_caller: dict[Callable[[Sequence[Outgoing]], None], list[Outgoing]] = {}
        written: set[int] = set()
        for record in outgoing:
            if self._failure is not None:
                break
            try:
                self._broker.produce(
                    record.topic, record.value, key=record.key, headers=record.headers
                )
            except BrokerError as error:
                self.fail(error)
                break
            written.add(id(record))
            by_caller.setdefault(self._callbacks.pop(id(record)), []).append(record)
        self.pending = [record for record in self.pending if id(record) not in written]
        for acknowledged, records in by_caller.items():
            acknowledged(records)
        if not self.pending:
            self._empty.set()
