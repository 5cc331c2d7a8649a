"""A TCP proxy before each broker, which can delay, cut, mute or slow down what passes.

Every connection of the consumers passes here; the posts' producer and the adversary have the brokers' plain listener.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_CHUNK_BYTES: Final = 1 << 16
_SLOW_CHUNK_BYTES: Final = 1 << 11


class Proxy:
    """One listening port of 127.0.0.1, and the broker's port behind it.

    Attributes:
        upstream: the port to forward to; set once the broker has one.
        delay_s: how long each chunk waits, in s.
        bytes_per_s: the rate of each connection and direction; 0: as fast as it goes.
        refusing: whether a new connection is closed at once.
    """

    def __init__(self) -> None:
        """Listen on nothing yet."""
        self.upstream = 0
        self.delay_s = 0.0
        self.bytes_per_s = 0
        self.refusing = False
        self._open = asyncio.Event()
        self._open.set()
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self) -> int:
        """Listen on a free port and return it."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        """Close the port and every connection."""
        if self._server is not None:
            self._server.close()
        self.cut()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def cut(self) -> None:
        """Close every open connection; new ones are let in, unless ``refusing`` is set."""
        for task in self._connections:
            task.cancel()

    def mute(self) -> None:
        """Pass nothing more; connections stay open, and new ones are taken."""
        self._open.clear()

    def heal(self) -> None:
        """Pass everything again, at once."""
        self.delay_s, self.bytes_per_s, self.refusing = 0.0, 0, False
        self._open.set()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(task)

        def end(task: asyncio.Task[None]) -> None:
            # Here, and not in the task: one that is cut before its first step runs no line of it.
            self._connections.discard(task)
            _abort(writer)
            writer.close()

        task.add_done_callback(end)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if not self.refusing:
                await self._forward(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # cut, or one side is gone: both sides are closed

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self.upstream)
        pumps = [
            asyncio.create_task(self._pump(reader, back)),
            asyncio.create_task(self._pump(there, writer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            _abort(back)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass bytes in one direction until its end."""
        while data := await reader.read(_SLOW_CHUNK_BYTES if self.bytes_per_s else _CHUNK_BYTES):
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            if self.bytes_per_s:
                await asyncio.sleep(len(data) / self.bytes_per_s)
            await self._open.wait()
            writer.write(data)
            await writer.drain()


def _abort(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, RuntimeError):
        writer.transport.abort()


async def start_proxies(count: int) -> tuple[list[Proxy], list[int]]:
    """Return so many listening proxies and their ports."""
    proxies = [Proxy() for _ in range(count)]
    return proxies, [await proxy.start() for proxy in proxies]


def forward(proxies: Sequence[Proxy], ports: Sequence[int]) -> None:
    """Set where each proxy forwards to."""
    for proxy, port in zip(proxies, ports, strict=True):
        proxy.upstream = port
