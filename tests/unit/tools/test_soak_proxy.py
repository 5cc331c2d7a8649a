"""The soak's proxy: what it does to a connection, and that it heals."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest

from tests.hang import HANG_S
from tests.soak.proxy import Proxy, forward, start_proxies

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable


@contextlib.asynccontextmanager
async def echoing() -> AsyncIterator[tuple[Proxy, int]]:
    """Yield a proxy before a server that echoes, and the proxy's port."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    (proxy,), (port,) = await start_proxies(1)
    forward([proxy], [server.sockets[0].getsockname()[1]])
    try:
        async with asyncio.timeout(HANG_S):
            yield proxy, port
    finally:
        await proxy.close()
        server.close()


@contextlib.asynccontextmanager
async def connected(port: int) -> AsyncIterator[Callable[[bytes], Awaitable[bytes]]]:
    """Yield a function that says something and returns the echo; less of it, if the connection ends before."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def say(data: bytes) -> bytes:
        writer.write(data)
        try:
            return await reader.readexactly(len(data))
        except asyncio.IncompleteReadError as ended:
            return ended.partial
        except ConnectionResetError:
            return b""

    try:
        yield say
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def test_bytes_pass_in_both_directions() -> None:
    async with echoing() as (_, port), connected(port) as say:
        assert await say(b"hello") == b"hello"


async def test_a_cut_closes_what_is_open_and_refuses_until_it_heals() -> None:
    async with echoing() as (proxy, port):
        async with connected(port) as say:
            assert await say(b"hello") == b"hello"
            proxy.refusing = True
            proxy.cut()
            assert await say(b"again") == b""
        async with connected(port) as say:
            assert await say(b"again") == b""
        proxy.heal()
        async with connected(port) as say:
            assert await say(b"hello") == b"hello"


async def test_what_is_sent_while_muted_comes_after_it_heals() -> None:
    async with echoing() as (proxy, port), connected(port) as say:
        assert await say(b"hello") == b"hello"
        proxy.mute()
        answer = asyncio.ensure_future(say(b"later"))
        done, _ = await asyncio.wait([answer], timeout=0.05)
        assert not done
        proxy.heal()
        assert await answer == b"later"


@pytest.mark.parametrize("kind", ["delay", "rate"])
async def test_a_slow_network_passes_every_byte(kind: str) -> None:
    async with echoing() as (proxy, port), connected(port) as say:
        if kind == "delay":
            proxy.delay_s = 0.01
        else:
            proxy.bytes_per_s = 100_000
        data = bytes(range(256)) * 20
        assert await say(data) == data
