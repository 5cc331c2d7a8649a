"""Stalled clients of the probes: their connections are bounded in number and time, and probes answer meanwhile."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from stream_guard.service.health.state import Health
from stream_guard.service.http import ProbeServer
from stream_guard.settings import HttpSettings
from tests.hang import HANG_S

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HALF = b"GET /livez HTTP/1.1\r\nHost: x\r\n"
WHOLE = HALF + b"\r\n"


@asynccontextmanager
async def probes(connections_max: int = 256, **timeouts: float) -> AsyncIterator[ProbeServer]:
    settings = HttpSettings(host="127.0.0.1", port=0, connections_max=connections_max)
    health = Health(turns=lambda: 1, stall_s_max=120)
    server = ProbeServer(settings, health, CollectorRegistry(), **timeouts)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


class Client:
    """A client that sends what it is told, and no more."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def closed(self) -> None:
        """Wait until the server has closed the connection."""
        async with asyncio.timeout(HANG_S):
            try:
                while await self.reader.read(1 << 16):
                    pass
            except ConnectionError:
                pass

    async def ask(self) -> bytes:
        """Send a whole request and return the answer's body."""
        self.writer.write(WHOLE)
        async with asyncio.timeout(HANG_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            return await self.reader.readexactly(3)


async def connect(server: ProbeServer, ends: AsyncExitStack, sent: bytes = b"") -> Client:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    ends.callback(writer.close)
    writer.write(sent)
    return Client(reader, writer)


async def get(server: ProbeServer) -> tuple[int, Any]:
    url = f"http://127.0.0.1:{server.port}/livez"
    timeout = aiohttp.ClientTimeout(total=HANG_S)
    async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as answer:
        return answer.status, await answer.text()


async def test_a_probe_is_answered_beside_300_half_open_connections() -> None:
    async with probes(first_request_timeout_s=HANG_S) as server, AsyncExitStack() as ends:
        clients = [await connect(server, ends, HALF) for _ in range(300)]
        assert await get(server) == (200, "ok\n")
        # The first 44 made room for the others, and the 45th for the probe.
        for client in clients[:45]:
            await client.closed()
        assert server.connections <= 256
        assert not any(client.reader.at_eof() for client in clients[45:])


async def test_a_connection_with_requests_outlives_those_without() -> None:
    async with (
        probes(connections_max=3, first_request_timeout_s=HANG_S) as server,
        AsyncExitStack() as ends,
    ):
        regular = await connect(server, ends)
        assert await regular.ask() == b"ok\n"
        silent = await connect(server, ends)
        half = await connect(server, ends, HALF)
        assert await regular.ask() == b"ok\n"
        for stalled in (silent, half):
            await connect(server, ends)
            await stalled.closed()
        assert await regular.ask() == b"ok\n"


@pytest.mark.parametrize("sent", [b"", b"GET /li", HALF])
async def test_a_connection_without_a_whole_request_is_closed_in_time(sent: bytes) -> None:
    async with probes(first_request_timeout_s=0.05) as server, AsyncExitStack() as ends:
        await (await connect(server, ends, sent)).closed()
        assert server.connections == 0


async def test_an_idle_connection_is_closed_in_time() -> None:
    async with probes(idle_timeout_s=0.05) as server, AsyncExitStack() as ends:
        client = await connect(server, ends)
        assert await client.ask() == b"ok\n"
        await client.closed()
        client = await connect(server, ends, WHOLE + HALF)
        await client.closed()
        assert server.connections == 0


async def test_a_closed_connection_takes_no_room() -> None:
    async with probes(connections_max=2) as server, AsyncExitStack() as ends:
        regular = await connect(server, ends)
        assert await regular.ask() == b"ok\n"
        for _ in range(5):
            assert await get(server) == (200, "ok\n")
            while server.connections > 1:  # noqa: ASYNC110 - no event of the server says so
                await asyncio.sleep(0)
        assert await regular.ask() == b"ok\n"
