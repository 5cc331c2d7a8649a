"""Signing in at an issuer: the way there, and the way back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from stream_guard.console.security.pending import PENDING_S, PendingSignIns
from stream_guard.console.security.roles import Role

if TYPE_CHECKING:
    from aiohttp import web

    from stream_guard.console.ask import Ask
    from stream_guard.console.guard import Guard
    from stream_guard.console.security.openid import SignInRefusedError
    from stream_guard.core.clock import Clock
    from stream_guard.offline.review.tokens import Person

__all__ = ["DONE", "OidcSignIn"]

DONE: Final = "/sign-in/oidc/done"
_log = structlog.get_logger(__name__)


class OidcSignIn:
    """Both ways.

    Args:
        guard: gives the browser its cookies.
        clock: for sign-ins that have begun.
    """

    def __init__(self, guard: Guard, clock: Clock) -> None:
        self._guard = guard
        self._pending = PendingSignIns(clock)
        self._cookie = f"{guard.cookie}-oidc"

    async def begin(self, ask: Ask) -> web.Response:
        """Send the browser to the issuer."""
        from stream_guard.console.security.openid import SignInRefusedError

        issuer = ask.sources.issuer
        if not issuer.configured:
            return ask.go("/sign-in")
        if ask.request.headers.get("Sec-Fetch-Site") == "cross-site":
            # Another site must not begin it for somebody.
            return ask.render("layout/again.html.j2", path="/sign-in")
        state, pending = self._pending.begin(self._redirect_url(ask))
        try:
            response = ask.go(issuer.request_url(pending, state))
        except SignInRefusedError as error:
            return self._refused(ask, error)
        # Nobody is signed in here until the issuer has answered.
        self._guard.sign_out(ask, response)
        response.set_cookie(
            self._cookie,
            pending.browser,
            path="/",
            max_age=round(PENDING_S),
            httponly=True,
            secure=ask.secure,
            # The way back is a link of the issuer, with which Strict would keep it.
            samesite="Lax",
        )
        return response

    async def done(self, ask: Ask) -> web.Response:
        """Take the browser back, and open a session."""
        from stream_guard.console.security.openid import SignInRefusedError

        if not ask.sources.issuer.configured:
            return ask.go("/sign-in")
        try:
            person = await self._person(ask)
        except SignInRefusedError as error:
            return self._refused(ask, error)
        # A redirection would still belong to the issuer's page, and the browser would keep the session's cookie back.
        response = ask.render("layout/again.html.j2", path="/")
        response.del_cookie(
            self._cookie, path="/", httponly=True, secure=ask.secure, samesite="Lax"
        )
        self._guard.sign_in(ask, response, person.id, Role(person.role))
        _log.info("console_signed_in", who=person.id, role=person.role, by="oidc")
        return response

    async def _person(self, ask: Ask) -> Person:
        from stream_guard.console.security.openid import Refusal, SignInRefusedError

        query = ask.request.query
        browser = ask.request.cookies.get(self._cookie, "")
        pending = self._pending.finish(query.get("state", ""), browser)
        if pending is None:
            raise SignInRefusedError(Refusal.STATE)
        if "error" in query:
            words = (query["error"], query.get("error_description", ""))
            raise SignInRefusedError(Refusal.ISSUER, ": ".join(filter(None, words)))
        return await ask.sources.issuer.person(pending, query.get("code", ""), query.get("iss"))

    def _redirect_url(self, ask: Ask) -> str:
        settings = ask.parts.settings.console
        if settings.oidc.redirect_url is not None:
            return settings.oidc.redirect_url
        own = settings.public_url or f"http://{ask.request.host}"
        return own.rstrip("/") + DONE

    def _refused(self, ask: Ask, error: SignInRefusedError) -> web.Response:
        from stream_guard.console.security.openid import Refusal

        _log.warning("console_sign_in_refused", by="oidc", why=str(error.why))
        status = 503 if error.why is Refusal.AWAY else 403
        return ask.render(
            "layout/sign_in.html.j2",
            status=status,
            failed=False,
            refusal=error.why,
            because=error.because,
        )
