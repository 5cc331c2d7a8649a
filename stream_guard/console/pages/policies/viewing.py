"""Shows the policies, and one policy with what is read out of its texts."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from stream_guard.console.security.roles import Role
from stream_guard.console.workshop.folder import has_draft, load_set, open_desk, places_of
from stream_guard.core.errors import PolicyError
from stream_guard.policies.draft_editing import TEXTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp import web

    from stream_guard.console.ask import Ask
    from stream_guard.console.workshop.folder import Desk, Place
    from stream_guard.policies.policy import Policy

__all__ = ["desk_of", "show_all", "show_desk", "show_one"]


async def show_all(ask: Ask) -> web.Response:
    """Show the live policies."""
    try:
        rows = await asyncio.to_thread(_rows, ask)
    except PolicyError as error:
        return ask.render("policies/list.html.j2", rows=[], because=str(error))
    return ask.render("policies/list.html.j2", rows=rows, because=None)


def _rows(ask: Ask) -> list[tuple[Policy, list[Place], bool]]:
    settings = ask.parts.settings
    policies = load_set(settings)
    return [
        (policy, places_of(policies, slug), has_draft(settings, slug))
        for slug, policy in policies.policies.items()
    ]


async def show_one(ask: Ask) -> web.Response:
    """Show a policy: the draft if there is one, else the live version."""
    return show_desk(ask, await desk_of(ask))


async def desk_of(ask: Ask, edited: Mapping[str, str] | None = None) -> Desk:
    """Return the policy of the request, with its draft. Raises as :func:`.open_desk`."""
    slug = ask.request.match_info["slug"]
    return await asyncio.to_thread(open_desk, ask.parts.settings, slug, edited)


def show_desk(
    ask: Ask,
    desk: Desk,
    *,
    status: int = 200,
    because: str | None = None,
    edited: Mapping[str, str] | None = None,
) -> web.Response:
    """Show a policy.

    Args:
        ask: the request.
        desk: the policy.
        status: of the answer.
        because: why something was not done; None where it was.
        edited: texts that were not saved, to be shown in the editor.
    """
    return ask.render(
        "policies/desk.html.j2",
        status=status,
        desk=desk,
        texts=desk.texts.files if edited is None else edited,
        names=list(TEXTS),
        may_edit=ask.may(Role.AUTHOR),
        because=because,
    )
