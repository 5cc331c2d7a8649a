"""Signing in and out, and the appearance: what needs no page of the navigation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog
from aiohttp import web

from stream_guard.console.ask import THEME_COOKIE, THEMES, Ask
from stream_guard.console.security.roles import Role

if TYPE_CHECKING:
    from stream_guard.console.guard import Guard
    from stream_guard.console.security.tokens import OwnerOf

__all__ = ["SignIn"]

_YEAR_S: Final = 31_536_000
_log = structlog.get_logger(__name__)


class SignIn:
    """The page on which people say who they are.

    Args:
        guard: gives the browser its cookie.
        owner_of: finds the owner of a token.
    """

    def __init__(self, guard: Guard, owner_of: OwnerOf) -> None:
        self._guard = guard
        self._owner_of = owner_of

    async def show(self, ask: Ask) -> web.Response:
        """Show the form."""
        if ask.session is not None:
            return ask.go("/")
        return ask.render("layout/sign_in.html.j2", failed=False, refusal=None)

    async def enter(self, ask: Ask) -> web.Response:
        """Open a session for the owner of a token."""
        person = self._owner_of(await ask.field("token"))
        if person is None:
            _log.warning("console_sign_in_refused")
            return ask.render("layout/sign_in.html.j2", status=403, failed=True, refusal=None)
        response = ask.go("/")
        self._guard.sign_in(ask, response, person.id, Role(person.role))
        _log.info("console_signed_in", who=person.id, role=person.role)
        return response

    async def leave(self, ask: Ask) -> web.Response:
        """End the session."""
        response = ask.go("/sign-in")
        self._guard.sign_out(ask, response)
        return response

    async def appearance(self, ask: Ask) -> web.Response:
        """Keep light, dark, or what the system has, in a cookie."""
        theme = await ask.field("theme")
        if theme not in THEMES:
            raise web.HTTPBadRequest(reason="no such appearance")
        response = ask.go("/")
        response.set_cookie(
            THEME_COOKIE,
            theme,
            path="/",
            max_age=_YEAR_S,
            httponly=True,
            secure=ask.secure,
            samesite="Strict",
        )
        return response
