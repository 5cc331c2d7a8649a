"""Probes and metrics over HTTP: ``/livez``, ``/readyz``, ``/healthz`` and ``/metrics``.

Liveness comes from progress: the poll loop turns and no stall was found. A missing broker or a
restarting engine does not fail it, because a restart would not help. Readiness needs a warm judge and a joined group.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import orjson
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from stream_guard.core.secrets import mask_fields
from stream_guard.service.connections import (
    FIRST_REQUEST_TIMEOUT_S,
    IDLE_TIMEOUT_S,
    Connections,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from prometheus_client import CollectorRegistry

    from stream_guard.service.health.state import Health
    from stream_guard.settings import HttpSettings


class ProbeServer:
    """Serves the probes; ``port`` is the real one once started.

    Args:
        settings: where to listen, and the most connections.
        health: what the probes report.
        registry: the metrics.
        first_request_timeout_s: a connection without a whole request after so many s is closed.
        idle_timeout_s: a connection without a further request after so many s is closed.
    """

    def __init__(
        self,
        settings: HttpSettings,
        health: Health,
        registry: CollectorRegistry,
        *,
        first_request_timeout_s: float = FIRST_REQUEST_TIMEOUT_S,
        idle_timeout_s: float = IDLE_TIMEOUT_S,
    ) -> None:
        self._settings = settings
        self._health = health
        self._registry = registry
        self._first_request_timeout_s = first_request_timeout_s
        self._idle_timeout_s = idle_timeout_s
        self._runner: web.AppRunner | None = None
        self._listener: asyncio.Server | None = None
        self._connections: Connections | None = None
        self.port = settings.port

    @property
    def connections(self) -> int:
        """Open connections."""
        return 0 if self._connections is None else len(self._connections)

    async def start(self) -> None:
        """Listen. Raises OSError if the port is taken."""
        app = web.Application(middlewares=[self._renew])
        app.add_routes(
            [
                web.get("/livez", self._livez),
                web.get("/readyz", self._readyz),
                web.get("/healthz", self._healthz),
                web.get("/metrics", self._metrics),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        assert self._runner.server is not None, "setup() makes it"
        self._connections = Connections(
            self._runner.server,
            self._settings.connections_max,
            first_request_timeout_s=self._first_request_timeout_s,
            idle_timeout_s=self._idle_timeout_s,
        )
        # Not web.TCPSite: it accepts any number of connections.
        self._listener = await asyncio.get_running_loop().create_server(
            self._connections, self._settings.host, self._settings.port
        )
        self.port = self._listener.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close."""
        if self._listener is not None:
            self._listener.close()
        if self._runner is not None:
            await self._runner.cleanup()

    @web.middleware
    async def _renew(
        self,
        request: web.Request,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        assert self._connections is not None, "start() makes them"
        self._connections.renew(request.protocol)
        return await handler(request)

    async def _livez(self, _request: web.Request) -> web.Response:
        return _answer(self._health.live())

    async def _readyz(self, _request: web.Request) -> web.Response:
        return _answer(self._health.ready())

    async def _healthz(self, _request: web.Request) -> web.Response:
        report = self._health.report()
        return web.Response(
            body=orjson.dumps(mask_fields(report)),
            content_type="application/json",
            status=200 if report["live"] else 503,
        )

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )


def _answer(good: bool) -> web.Response:  # noqa: FBT001 - it is the whole meaning
    return web.Response(text="ok\n" if good else "no\n", status=200 if good else 503)
