"""Serves the review queue over HTTP, and follows the topics meanwhile.

The database is used in threads, so the event loop never waits for it. Each answer is JSON; an error is
``{"error": ...}`` and quotes no body.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeVar

import orjson
import structlog
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest
from pydantic import BaseModel, ValidationError

from stream_guard.core.english import did_you_mean
from stream_guard.core.errors import (
    BrokerError,
    NotLeasedError,
    OperatorError,
    StreamGuardError,
    UnknownItemError,
)
from stream_guard.offline.review.api import (
    BODY_BYTES_MAX,
    QUERY,
    ROUTES,
    ClaimBody,
    DecisionBody,
    openapi,
)
from stream_guard.offline.review.deciding import Choice, SectionOf, decide, no_section
from stream_guard.offline.review.queue import Person
from stream_guard.offline.review.report import report
from stream_guard.records.review_audit import build_audit_entry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from stream_guard.core.clock import Clock
    from stream_guard.offline.review.projection import Projection
    from stream_guard.offline.review.queue import ReviewQueue
    from stream_guard.offline.review.tokens import Tokens
    from stream_guard.records.decision import Decision
    from stream_guard.records.review_audit import Asked
    from stream_guard.settings import ReviewSettings

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

__all__ = ["Parts", "ReviewServer", "metrics_of"]

BodyT = TypeVar("BodyT", bound=BaseModel)

_log = structlog.get_logger(__name__)
_PERSON: Final = web.RequestKey("person", Person)
_ITEM: Final = web.RequestKey("item", str)
# Figures for Prometheus are nobody's request.
_WHAT: Final[Mapping[str, Asked]] = {
    "list_items": "list",
    "show_item": "show",
    "claim": "lease",
    "release": "release",
    "decide": "decide",
    "stats": "stats",
    "audit": "audit",
}
_ITEMS_MAX: Final = 500
_DAY_MS: Final = 86_400_000
_ENTRIES_MAX: Final = 1_000


class Parts(NamedTuple):
    """What the server is made of.

    Attributes:
        queue, projection: of one database.
        tokens: who may ask.
        catch_up: reads the topics on.
        write: writes a decision, and returns once the broker has it.
        text_of: returns the text of an item's post from its topic, or None.
        clock: the time.
        audit: writes an entry of the audit trail, and returns once the broker has it; None without a topic for it.
        section_of: finds the meaning that a decision rests on.
    """

    queue: ReviewQueue
    projection: Projection
    tokens: Tokens
    catch_up: Callable[[], Awaitable[int]]
    write: Callable[[Decision], Awaitable[None]]
    text_of: Callable[[dict[str, Any]], Awaitable[str | None]]
    clock: Clock
    audit: Callable[[dict[str, Any]], Awaitable[None]] | None = None
    section_of: SectionOf = no_section


class Connections(Protocol):
    """A factory of bounded connections."""

    def __call__(self) -> asyncio.BaseProtocol: ...
    def renew(self, connection: web.RequestHandler) -> None: ...


class ReviewServer:
    """The server; ``port`` is the real one once started.

    Args:
        settings: where to listen.
        parts: the queue and what it needs.
        bound: makes the connections of a server, with a limit on their number.
    """

    def __init__(
        self,
        settings: ReviewSettings,
        parts: Parts,
        bound: Callable[[web.Server, int], Connections],
    ) -> None:
        self._settings = settings
        self._parts = parts
        self._bound = bound
        self._roles = {name: roles for _, _, name, roles, *_ in ROUTES}
        self._connections: Connections | None = None
        self._runner: web.AppRunner | None = None
        self._listener: asyncio.Server | None = None
        self._following: asyncio.Task[None] | None = None
        self.caught_up = asyncio.Event()
        self.port = settings.port

    async def start(self) -> None:
        """Listen, and begin to follow the topics. Raises OSError if the port is taken."""
        app = web.Application(middlewares=[self._guard], client_max_size=BODY_BYTES_MAX)
        for method, path, name, *_ in ROUTES:
            app.router.add_route(method, path, getattr(self, f"_{name}"), name=name)
        app.router.add_get("/openapi.json", self._openapi)
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._readyz)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        assert self._runner.server is not None, "setup() makes it"
        self._connections = self._bound(self._runner.server, self._settings.connections_max)
        self._listener = await asyncio.get_running_loop().create_server(
            self._connections, self._settings.host, self._settings.port
        )
        self.port = self._listener.sockets[0].getsockname()[1]
        self._following = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """Close."""
        if self._following is not None:
            self._following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._following
        if self._listener is not None:
            self._listener.close()
        if self._runner is not None:
            await self._runner.cleanup()

    async def failed(self) -> None:
        """Return, or raise, once the topics are not followed any more."""
        assert self._following is not None, "started first"
        await self._following

    async def _follow(self) -> None:
        while True:
            try:
                await self._parts.catch_up()
            except BrokerError as error:
                self.caught_up.clear()
                _log.warning("review_topics_not_read", error=str(error))
            else:
                self.caught_up.set()
            await asyncio.sleep(self._settings.follow_interval_s)

    def _now_ms(self) -> int:
        return self._parts.clock.wall_ns() // 1_000_000

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Ask who it is, what the role may do, and turn errors into answers."""
        if self._connections is not None and request.protocol is not None:
            self._connections.renew(request.protocol)
        route = request.match_info.route
        name = route.name
        try:
            if name is not None:
                person = self._parts.tokens.person(request.headers.get("Authorization"))
                if person is None:
                    answer = _error(401, "the bearer token is missing or unknown")
                    answer.headers["WWW-Authenticate"] = "Bearer"
                    return answer
                request[_PERSON] = person
                return await self._recorded(request, name, handler)
            return await handler(request)
        except web.HTTPException as error:
            return _error(error.status, error.reason)
        except StreamGuardError as error:
            return _error(_status_of(error), str(error))

    async def _recorded(
        self, request: web.Request, name: str, handler: Handler
    ) -> web.StreamResponse:
        """Answer a person whose request is in the audit trail first: a decision before it is written."""
        person = request[_PERSON]
        allowed = person.role in self._roles[name]
        if name == "decide" or not allowed:
            await self._note(request, name, allowed=allowed)
        if not allowed:
            return _error(403, f"the role {person.role} may not do this")
        if name == "decide":
            return await handler(request)
        try:
            return await handler(request)
        finally:
            await self._note(request, name, allowed=True)

    async def _note(self, request: web.Request, name: str, *, allowed: bool) -> None:
        """Write the entry of a request. Raises BrokerError."""
        what = _WHAT.get(name)
        if self._parts.audit is None or what is None:
            return
        person = request[_PERSON]
        entry = build_audit_entry(
            secrets.token_hex(16),
            at_ms=self._now_ms(),
            who=person.id,
            role=person.role,
            what=what,
            item_id=request.get(_ITEM, request.match_info.get("item_id")),
            allowed=allowed,
        )
        await self._parts.audit(entry)

    async def _openapi(self, _request: web.Request) -> web.Response:
        return _json(openapi())

    async def _livez(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _request: web.Request) -> web.Response:
        ready = self.caught_up.is_set()
        return web.Response(text="ok\n" if ready else "no\n", status=200 if ready else 503)

    async def _list_items(self, request: web.Request) -> web.Response:
        query = _filters(request, "/v1/items")
        found = await asyncio.to_thread(
            self._parts.queue.listed,
            state=query.get("state", "open"),
            policy=query.get("policy"),
            why=query.get("why"),
            limit=_limit(query.get("limit", "50"), _ITEMS_MAX),
        )
        return _json({"items": found})

    async def _show_item(self, request: web.Request) -> web.Response:
        person, item_id = request[_PERSON], request.match_info["item_id"]
        item = await asyncio.to_thread(self._parts.queue.show, item_id, person, self._now_ms())
        if item["text"] is None and item["state"] != "withdrawn":
            item["text"] = await self._parts.text_of(item)
        return _json(item)

    async def _claim(self, request: web.Request) -> web.Response:
        body = await _body(request, ClaimBody)
        person, now_ms = request[_PERSON], self._now_ms()
        lease = await asyncio.to_thread(
            self._parts.queue.claim, person, now_ms, item_id=body.item_id, policy=body.policy
        )
        if lease is None:
            return web.Response(status=204)
        request[_ITEM] = lease.item_id
        item, _ = await asyncio.to_thread(self._parts.queue.held, lease.item_id, person, now_ms)
        return _json({"lease": lease._asdict(), "item": item})

    async def _release(self, request: web.Request) -> web.Response:
        item_id = request.match_info["item_id"]
        await asyncio.to_thread(
            self._parts.queue.release, item_id, request[_PERSON], self._now_ms()
        )
        return web.Response(status=204)

    async def _decide(self, request: web.Request) -> web.Response:
        body = await _body(request, DecisionBody)
        made = await decide(
            self._parts.queue,
            self._parts.projection,
            self._parts.write,
            item_id=request.match_info["item_id"],
            choice=Choice(**body.model_dump()),
            person=request[_PERSON],
            now_ms=self._now_ms(),
            section_of=self._parts.section_of,
        )
        return _json(made.model_dump(mode="json"))

    async def _stats(self, _request: web.Request) -> web.Response:
        return _json(await asyncio.to_thread(report, self._parts.queue))

    async def _audit(self, request: web.Request) -> web.Response:
        query = _filters(request, "/v1/audit")
        entries = await asyncio.to_thread(
            self._parts.queue.trail,
            item_id=query.get("item_id"),
            limit=_limit(query.get("limit", "100"), _ENTRIES_MAX),
        )
        return _json({"audit": entries})

    async def _metrics(self, _request: web.Request) -> web.Response:
        since_ms = self._now_ms() - round(self._settings.quality_days * _DAY_MS)
        figures = await asyncio.to_thread(report, self._parts.queue, since_ms=since_ms)
        body = generate_latest(metrics_of(figures))
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})


def metrics_of(figures: dict[str, Any]) -> CollectorRegistry:
    """Return the figures of :func:`stream_guard.offline.review.report.report` as metrics."""
    registry = CollectorRegistry()
    items = Gauge("stream_guard_review_queue", "Items by state.", ["state"], registry=registry)
    for state, number in figures["items"].items():
        items.labels(state).set(number)
    labels = ["policy", "category", "bound"]
    for name in ("precision", "recall"):
        gauge = Gauge(
            f"stream_guard_review_{name}",
            f"Estimated {name} (bound: value) and its 95 % interval (low, high); category is empty for all.",
            labels,
            registry=registry,
        )
        for one in figures["quality"]:
            for bound, value in one[name].items():
                if value is not None:
                    gauge.labels(one["policy"], one["category"] or "", bound).set(value)
    kappa = Gauge(
        "stream_guard_review_kappa",
        "Cohen's kappa of blind second reviews.",
        ["policy"],
        registry=registry,
    )
    for policy, one in figures["agreement"]["policies"].items():
        if one["kappa"] is not None:
            kappa.labels(policy).set(one["kappa"])
    return registry


def _status_of(error: StreamGuardError) -> int:
    for kind, status in (
        (UnknownItemError, 404),
        (NotLeasedError, 409),
        (OperatorError, 422),
        (BrokerError, 503),
    ):
        if isinstance(error, kind):
            return status
    return 500


def _json(document: object) -> web.Response:
    return web.Response(body=orjson.dumps(document), content_type="application/json")


def _error(status: int, message: str) -> web.Response:
    body = orjson.dumps({"error": message})
    return web.Response(status=status, body=body, content_type="application/json")


def _filters(request: web.Request, path: str) -> Mapping[str, str]:
    """Return a request's query. Raises HTTPBadRequest for a filter or a value that the API does not know."""
    known = QUERY[path]
    for name, value in request.query.items():
        if name not in known:
            meant = did_you_mean(name, known)
            raise web.HTTPBadRequest(reason=f"unknown filter{meant}; use any of {', '.join(known)}")
        words = known[name].get("enum")
        if words is not None and value not in words:
            meant = did_you_mean(value, words)
            raise web.HTTPBadRequest(reason=f"{name}: not one of {', '.join(words)}{meant}")
    return request.query


def _limit(text: str, most: int) -> int:
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < len("10000") else 0
    if not 1 <= number <= most:
        raise web.HTTPBadRequest(reason=f"limit: not a number from 1 to {most}")
    return number


async def _body(request: web.Request, kind: type[BodyT]) -> BodyT:
    """Return a request's body. Raises HTTPBadRequest, and HTTPRequestEntityTooLarge."""
    raw = await request.read()
    try:
        return kind.model_validate_json(raw or b"{}")
    except ValidationError as error:
        faults = error.errors(include_input=False, include_url=False, include_context=False)
        first = faults[0]
        where = ".".join(map(str, first["loc"])) or "body"
        named = where if first["type"] != "extra_forbidden" else "body"
        raise web.HTTPBadRequest(reason=f"{named}: {first['msg']}".replace("\n", " ")) from None
