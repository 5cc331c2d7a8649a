"""Sends the parts of a page that move, as server-sent events.

A part is HTML that the server rendered and escaped; an event holds one part, and is sent only if it has changed.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import orjson
from aiohttp import web

from stream_guard.core.errors import StreamGuardError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from stream_guard.console.ask import Ask
    from stream_guard.console.page import LivePart

__all__ = ["LIVE_INTERVAL_S", "sources_part", "stream_parts"]

LIVE_INTERVAL_S: Final = 1.0
_QUIET_TURNS_MAX: Final = 15
"""After so many turns without a change, a comment is sent: it keeps proxies from closing the connection."""


async def sources_part(ask: Ask) -> str:
    """Return the notices about sources that cannot be read."""
    return ask.part("layout/sources.html.j2", states=ask.sources.states())


async def stream_parts(
    ask: Ask, parts: Mapping[str, LivePart], goes_on: Callable[[], bool]
) -> web.StreamResponse:
    """Send these parts, each when it has changed, until the browser goes away.

    Args:
        ask: the request.
        parts: by name.
        goes_on: called each time that the browser took an event; False ends the stream.
    """
    response = web.StreamResponse(
        headers={
            "Content-Type": "text/event-stream",
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",
        }
    )
    await response.prepare(ask.request)
    sent: dict[str, str] = {}
    quiet = 0
    while True:
        changed = [pair for pair in await _rendered(ask, parts) if sent.get(pair[0]) != pair[1]]
        try:
            for name, html in changed:
                sent[name] = html
                data = orjson.dumps({"part": name, "html": html})
                await response.write(b"event: part\ndata: " + data + b"\n\n")
            quiet = 0 if changed else quiet + 1
            if quiet >= _QUIET_TURNS_MAX:
                quiet = 0
                await response.write(b": still here\n\n")
        except ConnectionError:
            return response
        if quiet == 0 and not goes_on():
            return response
        await asyncio.sleep(LIVE_INTERVAL_S)


async def _rendered(ask: Ask, parts: Mapping[str, LivePart]) -> list[tuple[str, str]]:
    found = []
    for name, part in parts.items():
        try:
            found.append((name, await part(ask)))
        except StreamGuardError as error:
            html = ask.part("layout/part_failed.html.j2", because=str(error))
            found.append((name, html))
    return found
