"""The routes of the page Verdicts.

What people search for is in the body of a request, so no address and no log has it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, get_args

from stream_guard.console.page import Page, get, post
from stream_guard.console.pages.verdicts.story import judge_again, show_one, show_text, show_why
from stream_guard.console.security.roles import Role
from stream_guard.console.sources.verdict_search import SHOWN_MAX, Sought
from stream_guard.core.errors import (
    NotLeasedError,
    OperatorError,
    SettingsError,
    StreamGuardError,
)
from stream_guard.core.times import time_ms
from stream_guard.core.vocabulary import Decision
from stream_guard.kafka.bounds import Bound

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp import web

    from stream_guard.console.ask import Ask
    from stream_guard.console.sources.verdict_search import Searched

__all__ = ["VERDICTS"]

_WORDS: Final = ("id", "content", "author", "policy", "rule")
_FIELDS: Final = (*_WORDS, "decision", "first", "last", "topic")
_DECISIONS: Final = get_args(Decision)
_CHARACTERS_MAX: Final = 1_000


async def _show(ask: Ask) -> web.Response:
    return _page(ask, dict.fromkeys(_FIELDS, ""))


async def _search(ask: Ask) -> web.Response:
    sent = {name: (await ask.field(name)).strip() for name in _FIELDS}
    try:
        first, last = _bounds(ask, sent)
        sought = Sought(
            **{name: sent[name] for name in _WORDS},
            decision=sent["decision"] if sent["decision"] in _DECISIONS else "",
        )
        searched = await ask.sources.verdicts.search(sought, sent["topic"] or "live", first, last)
    except StreamGuardError as error:
        status = 422 if isinstance(error, OperatorError) else 503
        status = 409 if isinstance(error, NotLeasedError) else status
        return _page(ask, sent, problem=str(error), status=status)
    return _page(ask, sent, searched=searched)


def _bounds(ask: Ask, sent: Mapping[str, str]) -> tuple[Bound | None, Bound | None]:
    """Return the range of time. Raises SettingsError where a field is too long or no time."""
    if any(len(value) > _CHARACTERS_MAX for value in sent.values()):
        raise SettingsError(ask.text("verdicts.too_long", count=_CHARACTERS_MAX))
    first, last = (
        Bound(time_ms=time_ms(sent[name], ask.text(f"verdicts.{name}"))) if sent[name] else None
        for name in ("first", "last")
    )
    return first, last


def _page(
    ask: Ask,
    sent: Mapping[str, str],
    *,
    searched: Searched | None = None,
    problem: str = "",
    status: int = 200,
) -> web.Response:
    return ask.render(
        "verdicts/page.html.j2",
        status=status,
        sent={name: value[:_CHARACTERS_MAX] for name, value in sent.items()},
        searched=searched,
        problem=problem,
        topics=ask.sources.verdicts.topics,
        shown_topic=sent["topic"] or "live",
        words=_WORDS,
        decisions=_DECISIONS,
        shown_max=SHOWN_MAX,
        console=ask.parts.settings.console,
    )


_ONE: Final = "/verdicts/{topic}/{partition}/{offset}"
VERDICTS: Final = Page(
    "verdicts",
    (
        get("/verdicts", _show, Role.READ_ONLY),
        post("/verdicts", _search, Role.READ_ONLY, changes=False),
        get(_ONE, show_one, Role.READ_ONLY),
        # Reviewers and authors may; a route has one role, so the handler looks.
        post(f"{_ONE}/text", show_text, Role.READ_ONLY, changes=False),
        post(f"{_ONE}/why", show_why, Role.READ_ONLY, changes=False),
        post(f"{_ONE}/again", judge_again, Role.AUTHOR),
    ),
)
