"""Shows who made which version live, and takes a version back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from stream_guard.console.pages.policies.viewing import desk_of
from stream_guard.console.pages.policies.working import REASON_CHARACTERS_MAX
from stream_guard.console.security.roles import Role
from stream_guard.console.workshop.jobs import commit
from stream_guard.core.errors import StreamGuardError
from stream_guard.offline.improve.promoting import Change, history
from stream_guard.offline.improve.promoting import rollback as go_back
from stream_guard.policies.commits import check_checkout

if TYPE_CHECKING:
    from aiohttp import web

    from stream_guard.console.ask import Ask
    from stream_guard.console.workshop.folder import Desk

__all__ = ["rollback", "show_past"]


async def show_past(ask: Ask) -> web.Response:
    """Show the promotions and rollbacks of a policy, the latest first."""
    return await _show(ask, await desk_of(ask))


async def _show(
    ask: Ask, desk: Desk, *, status: int = 200, because: str | None = None
) -> web.Response:
    records = []
    try:
        records = await history(ask.parts.settings, desk.live.id)
    except StreamGuardError as error:
        because = because or str(error)
    return ask.render(
        "policies/past.html.j2",
        status=status,
        desk=desk,
        records=records[::-1],
        because=because,
        may_edit=ask.may(Role.AUTHOR),
    )


async def rollback(ask: Ask) -> web.Response:
    """Make an archived version live again. It needs no engine, so it never waits for the bench."""
    desk = await desk_of(ask)
    settings = ask.parts.settings
    reason = (await ask.field("reason")).strip()[:REASON_CHARACTERS_MAX]
    if not reason:
        return await _show(ask, desk, status=422, because=ask.text("policies.no_reason"))
    if await ask.field("live") != desk.live.sha256:
        return await _show(ask, desk, status=409, because=ask.text("policies.changed"))
    now_ms = ask.parts.clock.wall_ns() // 1_000_000
    change = Change(settings, desk.path, desk.live, ask.who, reason, now_ms)
    try:
        if settings.console.commit:
            await asyncio.to_thread(check_checkout, desk.path)
        to = (await ask.field("to")).strip() or None
        # Also when the console ends or the browser goes: a version is live with its record and commit, or it is not.
        not_committed = await ask.sources.bench.finish(_go_back(change, desk, to))
    except StreamGuardError as error:
        return await _show(ask, desk, status=422, because=str(error))
    if not_committed is not None:
        because = ask.text("policies.not_committed") + " " + not_committed
        return await _show(ask, await desk_of(ask), because=because)
    return ask.go(f"/policies/{desk.live.id}/history")


async def _go_back(change: Change, desk: Desk, to: str | None) -> str | None:
    """Make a version live again, and return why it could not be committed, or None."""
    record = await go_back(change, to)
    return await commit(change.settings, desk, record)
