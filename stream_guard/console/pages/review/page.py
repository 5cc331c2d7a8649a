"""The page Review: its addresses, and what each of them shows."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from stream_guard.console.page import Page, get, post
from stream_guard.console.pages.review.work import Reviewer
from stream_guard.console.security.roles import Role
from stream_guard.console.sources.state import Health
from stream_guard.core.errors import (
    BrokerError,
    DatabaseError,
    NotLeasedError,
    OperatorError,
    StreamGuardError,
)
from stream_guard.offline.review.tokens import Person

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp import web

    from stream_guard.console.ask import Ask
    from stream_guard.console.pages.review.work import OnDesk

__all__ = ["REVIEW"]

_QUEUE_MAX: Final = 50
_DAY_MS: Final = 86_400_000
_FIELDS: Final = ("item", "decision", "category", "action", "reason")


async def _show(ask: Ask) -> web.Response:
    return await _page(ask)


async def _page(
    ask: Ask,
    problem: StreamGuardError | None = None,
    *,
    nothing: bool = False,
    sent: Mapping[str, str] | None = None,
) -> web.Response:
    """Answer with the page: after a problem with the typed words; or after nothing was found for the person."""
    database = ask.sources.review_database
    if not database.configured:
        return _answer(ask, "off")
    if problem is None and _is_away(ask):
        return _answer(ask, "away")
    try:
        reviewer = Reviewer(ask)
        on_desk, problem = await _on_desk(reviewer, problem)
        values: dict[str, Any] = {
            "problem": problem,
            "on_desk": on_desk,
            "last": await reviewer.last(),
            "limits": await reviewer.limits(),
            "blurred": on_desk is not None and _is_blurred(ask, on_desk),
            "sent": {name: (sent or {}).get(name, "") for name in _FIELDS},
        }
    except DatabaseError as error:
        return _answer(ask, "away", problem=problem or error, status=503)
    state, until_ms = "nothing" if nothing else "idle", values["limits"].break_end_ms
    if on_desk is not None:
        state, until_ms = "item", on_desk.until_ms
    elif until_ms is not None:
        state = "break"
    if until_ms is not None:
        values["left_ms"] = max(0, until_ms - reviewer.now_ms())
    return _answer(ask, state, status=_status_of(problem), **values)


async def _on_desk(
    reviewer: Reviewer, problem: StreamGuardError | None
) -> tuple[OnDesk | None, StreamGuardError | None]:
    """Return the leased item, without its text where the audit trail or the text cannot be had."""
    try:
        return await reviewer.on_desk(), problem
    except BrokerError as error:
        return await reviewer.on_desk(text=False), problem or error


def _answer(ask: Ask, state: str, *, status: int = 200, **values: Any) -> web.Response:  # noqa: ANN401 - what it shows
    shown = dict.fromkeys(("problem", "on_desk", "last", "limits", "left_ms", "blurred"))
    console = ask.parts.settings.console
    return ask.render(
        "review/page.html.j2",
        status=status,
        state=state,
        console=console,
        decisions_are_read=ask.parts.settings.decisions.enabled,
        queue_state=_queue_state(ask),
        **(shown | {"sent": dict.fromkeys(_FIELDS, "")} | values),
    )


def _status_of(problem: StreamGuardError | None) -> int:
    if problem is None:
        return 200
    if isinstance(problem, NotLeasedError):
        return 409
    return 422 if isinstance(problem, OperatorError) else 503


def _is_away(ask: Ask) -> bool:
    sources = ask.sources
    states = (sources.review_database.state, sources.review_topics.state)
    return any(state.health in (Health.AWAY, Health.WAITING) for state in states)


def _is_blurred(ask: Ask, on_desk: OnDesk) -> bool:
    blur = ask.parts.settings.console.review_blur
    if "reveal" in ask.request.query or blur == "never":
        return False
    item = on_desk.item
    harmful = item["verdict"]["decision"] != "safe" or "disagreement" in item["why"]
    return blur == "always" or harmful


async def _next(ask: Ask) -> web.Response:
    try:
        found = await Reviewer(ask).take()
    except StreamGuardError as error:
        return await _page(ask, error)
    return await _page(ask, nothing=True) if found is None else ask.go("/review")


async def _after(ask: Ask) -> web.Response:
    """Answer after an item is done: with the next one, if there is one."""
    try:
        await Reviewer(ask).take(skipped=False)
    except StreamGuardError as error:
        return await _page(ask, error)
    return ask.go("/review")


async def _take(ask: Ask) -> web.Response:
    try:
        await Reviewer(ask).take(await ask.field("item"))
    except StreamGuardError as error:
        return await _page(ask, error)
    return ask.go("/review")


async def _decide(ask: Ask) -> web.Response:
    sent = {name: await ask.field(name) for name in _FIELDS}
    try:
        await Reviewer(ask).decide(
            sent["item"],
            decision=sent["decision"],
            category=sent["category"],
            action=sent["action"],
            reason=sent["reason"],
        )
    except StreamGuardError as error:
        return await _page(ask, error, sent=sent)
    return await _after(ask)


async def _skip(ask: Ask) -> web.Response:
    try:
        await Reviewer(ask).skip(await ask.field("item"))
    except StreamGuardError as error:
        return await _page(ask, error)
    return await _after(ask)


async def _escalate(ask: Ask) -> web.Response:
    reason = await ask.field("reason")
    try:
        await Reviewer(ask).escalate(await ask.field("item"), reason)
    except StreamGuardError as error:
        return await _page(ask, error, sent={"reason": reason})
    return await _after(ask)


async def _undo(ask: Ask) -> web.Response:
    try:
        await Reviewer(ask).undo()
    except StreamGuardError as error:
        return await _page(ask, error)
    return ask.go("/review")


def _queue_state(ask: Ask) -> str:
    database = ask.sources.review_database
    return ask.part("review/queue_state.html.j2", counts=database.counts, away=_is_away(ask))


async def _state(ask: Ask) -> str:
    return _queue_state(ask)


async def _queue(ask: Ask) -> web.Response:
    queue = ask.sources.review_database.desk().queue
    person = Person(ask.who, str(ask.role))
    await ask.sources.review_topics.note(person, "list", None)
    items = await asyncio.to_thread(queue.listed, limit=_QUEUE_MAX)
    escalated = await asyncio.to_thread(queue.escalated)
    return ask.render("review/queue.html.j2", items=items, escalated=escalated)


async def _quality(ask: Ask) -> web.Response:
    from stream_guard.offline.review.report import report

    queue = ask.sources.review_database.desk().queue
    person = Person(ask.who, str(ask.role))
    await ask.sources.review_topics.note(person, "stats", None)
    days = ask.parts.settings.review.quality_days
    since_ms = ask.parts.clock.wall_ns() // 1_000_000 - round(days * _DAY_MS)
    figures = await asyncio.to_thread(report, queue, since_ms=since_ms)
    agreement = figures["agreement"]
    reviewers = {
        name: row
        for name, row in agreement["reviewers"].items()
        if ask.may(Role.LEAD) or name == ask.who
    }
    return ask.render(
        "review/quality.html.j2",
        days=days,
        quality=figures["quality"],
        policies=agreement["policies"],
        reviewers=reviewers,
    )


REVIEW = Page(
    "review",
    (
        get("/review", _show, Role.REVIEWER),
        get("/review/queue", _queue, Role.REVIEWER),
        get("/review/quality", _quality, Role.REVIEWER),
        post("/review/next", _next, Role.REVIEWER),
        post("/review/take", _take, Role.LEAD),
        post("/review/decide", _decide, Role.REVIEWER),
        post("/review/skip", _skip, Role.REVIEWER),
        post("/review/escalate", _escalate, Role.REVIEWER),
        post("/review/undo", _undo, Role.REVIEWER),
    ),
    {"state": _state},
)
