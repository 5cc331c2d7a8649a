"""Serves the console: puts routes, checks, sources and pages together."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from aiohttp import web

from stream_guard.console.ask import Parts
from stream_guard.console.guard import Guard
from stream_guard.console.layout.rendering import Layout
from stream_guard.console.layout.static_files import StaticFiles
from stream_guard.console.page import get, post
from stream_guard.console.pages.live import sources_part, stream_parts
from stream_guard.console.pages.oidc import DONE, OidcSignIn
from stream_guard.console.pages.registry import PAGES
from stream_guard.console.pages.sign_in import SignIn
from stream_guard.console.security.origin import Origins
from stream_guard.console.security.roles import Role
from stream_guard.console.security.sessions import Sessions
from stream_guard.console.texts.catalogue import load_texts
from stream_guard.service.connections import Connections

if TYPE_CHECKING:
    from stream_guard.console.ask import Ask
    from stream_guard.console.guard import Answer
    from stream_guard.console.page import LivePart
    from stream_guard.console.security.tokens import OwnerOf
    from stream_guard.console.sources.sources import Sources
    from stream_guard.core.clock import Clock
    from stream_guard.settings import Settings

__all__ = ["ConsoleServer"]

BODY_BYTES_MAX: Final = 2 << 20
"""Of a form: a policy, or pasted posts."""
_SHUTDOWN_TIMEOUT_S: Final = 1.0
"""Streams of events end only with the process."""


class ConsoleServer:
    """The console; ``port`` is the real one once started.

    Args:
        settings: all sections.
        sources: where data comes from.
        owner_of: finds the owner of a token.
        clock: the time.
    """

    def __init__(
        self, settings: Settings, sources: Sources, owner_of: OwnerOf, clock: Clock
    ) -> None:
        self._settings = settings.console
        self._sources = sources
        self._static = StaticFiles()
        parts = Parts(settings, Layout(load_texts(), self._static), sources, clock, PAGES)
        secure = (settings.console.public_url or "").startswith("https://")
        self._sessions = Sessions(clock, settings.console.session_lifetime_s)
        self._guard = Guard(parts, self._sessions, Origins(settings.console), secure=secure)
        self._sign_in = SignIn(self._guard, owner_of)
        self._oidc = OidcSignIn(self._guard, clock)
        self._live: dict[str, tuple[Role, LivePart]] = {"sources": (Role.READ_ONLY, sources_part)}
        for page in PAGES:
            for name, part in page.live.items():
                self._live[f"{page.slug}.{name}"] = (page.role, part)
        self._connections: Connections | None = None
        self._runner: web.AppRunner | None = None
        self._listener: asyncio.Server | None = None
        self._reading: asyncio.Task[None] | None = None
        self.port = settings.console.port

    def application(self) -> web.Application:
        """Return the application: every route with its checks."""
        app = web.Application(
            middlewares=[self._renewing, self._guard.middleware], client_max_size=BODY_BYTES_MAX
        )
        routes = [
            get("/", self._first, Role.READ_ONLY),
            get("/live", self._stream, Role.READ_ONLY),
            # These two change nothing but the person's own session and cookie.
            post("/sign-out", self._sign_in.leave, Role.READ_ONLY, changes=False),
            post("/appearance", self._sign_in.appearance, Role.READ_ONLY, changes=False),
            *(route for page in PAGES for route in page.routes),
        ]
        for route in routes:
            app.router.add_route(route.method, route.path, self._guard.protected(route))
        app.router.add_get("/sign-in", self._guard.public(self._sign_in.show))
        app.router.add_post("/sign-in", self._guard.public(self._sign_in.enter))
        app.router.add_get("/sign-in/oidc", self._guard.public(self._oidc.begin))
        app.router.add_get(DONE, self._guard.public(self._oidc.done))
        app.router.add_get("/static/{version}/{name}", self._static_file)
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._livez)
        return app

    async def start(self) -> None:
        """Listen, and begin to read the sources. Raises OSError if the port is taken."""
        self._runner = web.AppRunner(
            self.application(), access_log=None, shutdown_timeout=_SHUTDOWN_TIMEOUT_S
        )
        await self._runner.setup()
        assert self._runner.server is not None, "setup() makes it"
        self._connections = Connections(self._runner.server, self._settings.connections_max)
        self._listener = await asyncio.get_running_loop().create_server(
            self._connections, self._settings.host, self._settings.port
        )
        self.port = self._listener.sockets[0].getsockname()[1]
        self._reading = asyncio.create_task(self._sources.run(), name="console sources")

    async def stop(self) -> None:
        """Close."""
        if self._listener is not None:
            self._listener.close()
        if self._reading is not None:
            self._reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reading
        if self._runner is not None:
            await self._runner.cleanup()
        await self._sources.close()

    async def failed(self) -> None:
        """Return, or raise, once the sources are not read any more."""
        assert self._reading is not None, "started first"
        await self._reading

    async def _first(self, ask: Ask) -> web.Response:
        return ask.go(f"/{ask.navigation()[0].slug}")

    async def _stream(self, ask: Ask) -> web.StreamResponse:
        parts = {}
        for name in ask.request.query.getall("part", []):
            role, part = self._live.get(name, (Role.LEAD, None))
            if part is None or not ask.may(role):
                raise web.HTTPNotFound
            parts[name] = part
        return await stream_parts(ask, parts, lambda: self._goes_on(ask))

    def _goes_on(self, ask: Ask) -> bool:
        """Keep the connection of a stream open, while its session is."""
        self._renew(ask.request)
        return self._guard.session(ask.request) is not None

    def _renew(self, request: web.Request) -> None:
        if self._connections is not None and request.protocol is not None:
            self._connections.renew(request.protocol)

    @web.middleware
    async def _renewing(self, request: web.Request, handler: Answer) -> web.StreamResponse:
        self._renew(request)
        return await handler(request)

    async def _static_file(self, request: web.Request) -> web.Response:
        file = self._static.find(request.match_info["name"])
        if file is None or request.match_info["version"] != self._static.version:
            raise web.HTTPNotFound
        return web.Response(
            body=file.content,
            content_type=file.content_type,
            charset="utf-8",
            headers={"Cache-Control": "public, max-age=31536000, immutable"},
        )

    async def _livez(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n")
