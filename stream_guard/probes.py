"""Probes and metrics over HTTP: ``/livez``, ``/readyz``, ``/healthz`` and ``/metrics``.

Liveness comes from real progress (the poll loop turns, and nothing was found to stand still, see ``stall``), never from
Kafka's or the engine's being there: a restart does not mend a broker, and a dead engine is being rebuilt. Readiness is:
the judge is warm and the group joined.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client import CollectorRegistry

    from stream_guard.settings import HttpSettings

# A poll lasts half a second at most, save in a rebalance, which has its own deadline in the settings.
STALL_S_MAX = 120.0


@dataclass(slots=True)
class Health:
    """What the probes tell.

    Attributes:
        turns: returns how often the poll loop has turned.
        engine_ready, joined: what readiness waits for.
        stalled: what was found to stand still; the process is about to end.
        details: shown by ``/healthz``.
    """

    turns: Callable[[], int] = lambda: 0
    engine_ready: bool = False
    joined: bool = False
    stopping: bool = False
    stalled: str | None = None
    stall_s_max: float = STALL_S_MAX
    details: dict[str, Any] = field(default_factory=dict)
    _seen: int = -1
    _seen_at_s: float = field(default_factory=time.monotonic)

    def live(self) -> bool:
        """Whether the poll loop has turned of late. The first look counts as a turn."""
        turns, now_s = self.turns(), time.monotonic()
        if turns != self._seen:
            self._seen, self._seen_at_s = turns, now_s
        return self.stalled is None and now_s - self._seen_at_s < self.stall_s_max

    def ready(self) -> bool:
        """Whether posts are being judged."""
        return self.engine_ready and self.joined and not self.stopping

    def report(self) -> dict[str, Any]:
        """Return everything that is known."""
        return {
            "live": self.live(),
            "ready": self.ready(),
            "engine_ready": self.engine_ready,
            "joined": self.joined,
            "stopping": self.stopping,
            "stalled": self.stalled,
            "poll_turns": self.turns(),
            **self.details,
        }


class ProbeServer:
    """Serves the probes; ``port`` is the real one once started."""

    def __init__(self, settings: HttpSettings, health: Health, registry: CollectorRegistry) -> None:
        self._settings = settings
        self._health = health
        self._registry = registry
        self._runner: web.AppRunner | None = None
        self.port = settings.port

    async def start(self) -> None:
        """Listen. Raises OSError where the port is taken."""
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
            body=orjson.dumps(report),
            content_type="application/json",
            status=200 if report["live"] else 503,
        )

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )


def _answer(good: bool) -> web.Response:  # noqa: FBT001 - it is the whole meaning
    return web.Response(text="ok\n" if good else "no\n", status=200 if good else 503)
