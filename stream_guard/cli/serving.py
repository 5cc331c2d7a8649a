"""Keeps a server of pages running, for the commands that serve until they are stopped."""

from __future__ import annotations

import asyncio
import signal
from typing import Protocol


class Server(Protocol):
    """A server that has started."""

    async def failed(self) -> None:
        """Raise the error after which it cannot serve."""

    async def stop(self) -> None:
        """End it."""


async def serve_until_stopped(server: Server) -> None:
    """Wait for SIGTERM, SIGINT or the server's error, which is raised; then stop the server."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    waiting = asyncio.create_task(stopped.wait())
    failing = asyncio.create_task(server.failed())
    try:
        await asyncio.wait((waiting, failing), return_when=asyncio.FIRST_COMPLETED)
        if failing.done():
            failing.result()
    finally:
        waiting.cancel()
        await server.stop()
        await asyncio.gather(waiting, failing, return_exceptions=True)
