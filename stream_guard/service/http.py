"""Probes and metrics over HTTP: ``/livez``, ``/readyz``, ``/healthz`` and ``/metrics``.

Liveness comes from progress: the poll loop turns and no stall was found. A missing broker or a
restarting engine does not fail it, because a restart would not help. Readiness needs a warm judge and a joined group.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from stream_guard.core.secrets import mask_fields

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from stream_guard.service.health.state import Health
    from stream_guard.settings import HttpSettings


class ProbeServer:
    """Serves the probes; ``port`` is the real one once started."""

    def __init__(self, settings: HttpSettings, health: Health, registry: CollectorRegistry) -> None:
        self._settings = settings
        self._health = health
        self._registry = registry
        self._runner: web.AppRunner | None = None
        self.port = settings.port

    async def start(self) -> None:
        """Listen. Raises OSError if the port is taken."""
        app = web.Application()
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
        site = web.TCPSite(self._runner, self._settings.host, self._settings.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Close."""
        if self._runner is not None:
            await self._runner.cleanup()

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
