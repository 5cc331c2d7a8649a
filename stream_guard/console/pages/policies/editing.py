"""Changes drafts. Nothing here changes a live version."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from stream_guard.console.pages.policies.viewing import desk_of, show_desk
from stream_guard.core.errors import EditConflictError, PolicyError
from stream_guard.policies.draft_editing import TEXTS, save_texts, start_again
from stream_guard.policies.drafts import rebase

if TYPE_CHECKING:
    from stream_guard.console.ask import Ask

__all__ = ["change_draft", "check", "save"]

TEXT_FIELD = "text-"
"""What the name of a text's field begins with; the name of its file follows."""


async def check(ask: Ask) -> web.Response:
    """Answer what can be said about texts that are not saved: a part of a page."""
    desk = await desk_of(ask, await _texts(ask))
    part = ask.part("policies/checked.html.j2", checked=desk.checked, live=desk.live)
    return web.Response(text=part, content_type="text/html")


async def save(ask: Ask) -> web.Response:
    """Save the draft, unless it was changed since it was shown."""
    texts = await _texts(ask)
    desk = await desk_of(ask, texts)
    path, seen = desk.path, await ask.field("digest")
    try:
        await asyncio.to_thread(save_texts, path, desk.live, texts, seen)
    except EditConflictError:
        because = ask.text("policies.conflict")
        return show_desk(ask, desk, status=409, because=because, edited=texts)
    except PolicyError as error:
        return show_desk(ask, desk, status=422, because=str(error), edited=texts)
    return ask.go(f"/policies/{desk.live.id}")


async def change_draft(ask: Ask) -> web.Response:
    """Start a draft again from the live version, or note that it has what the live version says."""
    desk = await desk_of(ask)
    what, seen = await ask.field("what"), await ask.field("digest")
    try:
        if what == "again":
            await asyncio.to_thread(start_again, desk.path, desk.live, seen)
        elif what == "follow" and await ask.field("live") == desk.live.sha256:
            await asyncio.to_thread(rebase, desk.path, desk.live)
        else:
            return show_desk(ask, desk, status=409, because=ask.text("policies.conflict"))
    except EditConflictError:
        return show_desk(ask, desk, status=409, because=ask.text("policies.conflict"))
    return ask.go(f"/policies/{desk.live.id}")


async def _texts(ask: Ask) -> dict[str, str]:
    return {name: (await ask.field(TEXT_FIELD + name)).replace("\r\n", "\n") for name in TEXTS}
