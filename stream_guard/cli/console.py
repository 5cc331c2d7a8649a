"""``stream-guard console``."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from stream_guard.cli.options import ConfigOption
from stream_guard.cli.serving import serve_until_stopped
from stream_guard.cli.terminal import say
from stream_guard.core.errors import SettingsError
from stream_guard.settings import load_settings

if TYPE_CHECKING:
    from stream_guard.settings import ConsoleSettings, Settings


def console(*, config: ConfigOption = None) -> None:
    """Serve pages for a browser, until SIGTERM or SIGINT: what happens now, and the work of people.

    The console is a process of its own: it reads the topics and the metrics of the service, and judges nothing.

    Without console.tokens_file it listens on this machine alone, and prints an address that signs you in.
    """
    from stream_guard.policies.commits import require_git
    from stream_guard.telemetry.logs import configure_logs

    settings = load_settings(config)
    if settings.console.commit:
        require_git()
    configure_logs(settings.telemetry)
    asyncio.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    from stream_guard.console.security.tokens import local_token, tokens_of
    from stream_guard.console.server import ConsoleServer
    from stream_guard.console.sources.sources import make_sources
    from stream_guard.core.clock import SystemClock

    clock = SystemClock()
    path, owner_of = "/", tokens_of(settings.console)
    if owner_of is None:
        token, owner_of = local_token()
        # Behind #, so that no server or log sees it.
        path = f"/sign-in#{token}"
    server = ConsoleServer(settings, make_sources(settings, clock), owner_of, clock)
    try:
        await server.start()
    except OSError as error:
        host, port = settings.console.host, settings.console.port
        message = (
            f"console.port (STREAM_GUARD_CONSOLE__PORT): cannot listen on {host}:{port}: {error.strerror}; "
            "choose another, or 0 for a free one"
        )
        raise SettingsError(message) from error
    say(f"console: {_address(settings.console, server.port)}{path}")
    await serve_until_stopped(server)


def _address(settings: ConsoleSettings, port: int) -> str:
    if settings.public_url is not None:
        return settings.public_url.rstrip("/")
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{port}"
