"""What happens to every request before a page sees it: host, session, role, origin, token. And headers after.

A page cannot leave a check out: the role is a part of its route, and the other checks depend on the method alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog
from aiohttp import web

from stream_guard.console.ask import Ask
from stream_guard.console.security.headers import HEADERS
from stream_guard.core.errors import (
    BrokerError,
    DatabaseError,
    NotLeasedError,
    OperatorError,
    StreamGuardError,
    UnknownItemError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from stream_guard.console.ask import Parts
    from stream_guard.console.page import Handler, Route
    from stream_guard.console.security.origin import Origins
    from stream_guard.console.security.roles import Role
    from stream_guard.console.security.sessions import Session, Sessions

    Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]

__all__ = ["CSRF_FIELD", "CSRF_HEADER", "Guard"]

CSRF_FIELD: Final = "csrf"
CSRF_HEADER: Final = "X-CSRF-Token"
_PROBES: Final = ("/livez", "/readyz")
"""A cluster asks for them by the address of the pod."""
_log = structlog.get_logger(__name__)
_STATUS: Final = (
    (UnknownItemError, 404),
    (NotLeasedError, 409),
    (OperatorError, 422),
    (BrokerError, 503),
    (DatabaseError, 503),
)


class Guard:
    """The checks of requests.

    Args:
        parts: what pages use.
        sessions: who is signed in.
        origins: which hosts and origins a request may name.
        secure: whether cookies are sent over TLS alone.
    """

    def __init__(self, parts: Parts, sessions: Sessions, origins: Origins, *, secure: bool) -> None:
        self._parts = parts
        self._sessions = sessions
        self._origins = origins
        self._secure = secure
        # The prefix binds a cookie to this host, which browsers allow over TLS alone.
        self.cookie: Final = "__Host-stream-guard" if secure else "stream-guard"

    def public(self, handler: Handler) -> Answer:
        """Return an answer for a request that needs no session; a POST must still come from a page of the console."""

        async def answer(request: web.Request) -> web.StreamResponse:
            if request.method == "POST" and not self._origins.is_own(request):
                return self._refused(self._ask(request, None), 403, "errors.origin")
            return await handler(self._ask(request, self.session(request)))

        return answer

    def protected(self, route: Route) -> Answer:
        """Return the answer of a route of a page, with every check."""

        async def answer(request: web.Request) -> web.StreamResponse:
            session = self.session(request)
            if session is None:
                return self._to_sign_in(request)
            ask = self._ask(request, session)
            if not session.role.includes(route.role):
                self._note(ask, route, 403)
                return self._refused(ask, 403, "errors.role", role=route.role)
            if route.method != "GET" and not await self._is_meant(ask, session):
                self._note(ask, route, 403)
                return self._refused(ask, 403, "errors.origin")
            return await self._answered(ask, route)

        return answer

    @web.middleware
    async def middleware(self, request: web.Request, handler: Answer) -> web.StreamResponse:
        """Refuse other hosts, turn errors into pages, and add the headers."""
        ask = self._ask(request, self.session(request))
        try:
            if not self._origins.serves(request) and request.path not in _PROBES:
                response: web.StreamResponse = self._refused(ask, 421, "errors.host")
            else:
                response = await handler(request)
        except web.HTTPException as error:
            response = self._refused(ask, error.status, "errors.http", reason=error.reason)
        except Exception:  # noqa: BLE001 - whatever a page raises is logged, and the person gets a page
            _log.exception("console_request_failed", route=_name_of(request))
            response = self._refused(ask, 500, "errors.unexpected")
        if not response.prepared:
            for name, value in HEADERS.items():
                response.headers[name] = value
            response.headers.setdefault("Cache-Control", "no-store")
        return response

    def sign_in(self, ask: Ask, response: web.StreamResponse, who: str, role: Role) -> None:
        """Open a session for a person in the browser of a request, and end its earlier session."""
        self._sessions.end(ask.request.cookies.get(self.cookie))
        secret = self._sessions.begin(who, role)
        response.set_cookie(
            self.cookie, secret, path="/", httponly=True, secure=self._secure, samesite="Strict"
        )

    def sign_out(self, ask: Ask, response: web.StreamResponse) -> None:
        """End the session of a request."""
        self._sessions.end(ask.request.cookies.get(self.cookie))
        response.del_cookie(
            self.cookie, path="/", httponly=True, secure=self._secure, samesite="Strict"
        )

    async def _answered(self, ask: Ask, route: Route) -> web.StreamResponse:
        try:
            response = await route.handler(ask)
        except StreamGuardError as error:
            status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
            response = ask.render("layout/error.html.j2", status=status, because=str(error))
        if route.changes:
            self._note(ask, route, response.status)
        return response

    async def _is_meant(self, ask: Ask, session: Session) -> bool:
        """Return whether a page of the console made this request for this session."""
        if not self._origins.is_own(ask.request):
            return False
        given = ask.request.headers.get(CSRF_HEADER) or await ask.field(CSRF_FIELD)
        return session.owns(given)

    def _to_sign_in(self, request: web.Request) -> web.StreamResponse:
        ask = self._ask(request, None)
        if request.method != "GET" or request.headers.get("Accept", "").startswith(
            "text/event-stream"
        ):
            return self._refused(ask, 401, "errors.signed_out")
        if request.headers.get("Sec-Fetch-Site") == "cross-site":
            # A link on another site: the browser keeps the cookie back, and sends it when the console itself asks.
            return ask.render("layout/again.html.j2", path=request.path)
        return web.Response(status=303, headers={"Location": "/sign-in"})

    def _refused(self, ask: Ask, status: int, key: str, **values: object) -> web.Response:
        return ask.render("layout/error.html.j2", status=status, because=ask.text(key, **values))

    def _ask(self, request: web.Request, session: Session | None) -> Ask:
        return Ask(request, session, self._parts, self._secure)

    def session(self, request: web.Request) -> Session | None:
        """Return the session of a request; None where nobody is signed in."""
        return self._sessions.find(request.cookies.get(self.cookie))

    def _note(self, ask: Ask, route: Route, status: int) -> None:
        # The route's pattern, not the path.
        _log.info(
            "console_request",
            who=ask.who,
            role=str(ask.role),
            method=route.method,
            route=route.path,
            status=status,
        )


def _name_of(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return "" if resource is None else resource.canonical
