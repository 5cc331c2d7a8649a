"""An HTTP server for tests that comes and goes, always at the same address."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

from aiohttp import web

__all__ = ["HttpPlace"]


class HttpPlace(ABC):
    """The server; an async context manager.

    Attributes:
        url: its address, once it has come.
    """

    path = ""
    """What its address ends with."""

    def __init__(self) -> None:
        self.url = ""
        self._port = 0
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        await self.come()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.go()

    @abstractmethod
    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Add what it answers."""

    async def come(self) -> None:
        """Answer from now on, always at the same address."""
        app = web.Application()
        self.add_routes(app.router)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        self._port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self._port}{self.path}"

    async def go(self) -> None:
        """Answer no more."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
