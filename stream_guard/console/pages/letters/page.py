"""The page Dead letters: everybody sees them, leads replay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import structlog
from aiohttp import web

from stream_guard.console.page import Page, get, post
from stream_guard.console.security.roles import Role
from stream_guard.core.errors import UnknownItemError, dead_letter_reasons
from stream_guard.core.visible_bytes import visible_bytes
from stream_guard.records.dead_letter import DeadLetterFilter

if TYPE_CHECKING:
    from stream_guard.console.ask import Ask
    from stream_guard.console.sources.letter_table import LetterTable
    from stream_guard.records.dead_letter import DeadLetter

__all__ = ["LETTERS"]

_SHOWN_MAX: Final = 100
"""Dead letters on the page, the latest."""
_CONTENT_BYTES_MAX: Final = 16 << 10
"""Of a record's value, as in ``stream-guard dlq show --content``."""
_HEADERS_MAX: Final = 100
_OFFSET_DIGITS_MAX: Final = 19
_log = structlog.get_logger(__name__)


async def _show(ask: Ask) -> web.Response:
    await ask.sources.dead_letters.look_anew()
    return _page(ask)


def _page(ask: Ask, *, status: int = 200, because: str = "") -> web.Response:
    reason = _reason_of(ask)
    return ask.render(
        "letters/page.html.j2",
        status=status,
        because=because,
        table=_table_part(ask, reason),
        replay=_replay_part(ask),
    )


def _reason_of(ask: Ask) -> str | None:
    """Return the reason that the address names; None for all. Raises web.HTTPNotFound for an unknown word."""
    reason = ask.request.query.get("reason")
    if reason is not None and reason not in dead_letter_reasons():
        raise web.HTTPNotFound
    return reason


def _table_part(ask: Ask, reason: str | None = None) -> str:
    source = ask.sources.dead_letters
    table: LetterTable | None = source.look()
    values: dict[str, Any] = {"letters": [], "reasons": []}
    if table is not None:
        values = {"letters": table.newest(_SHOWN_MAX, reason), "reasons": table.reasons()}
    return ask.part(
        "letters/table.html.j2",
        table=table,
        reason=reason,
        known=frozenset(dead_letter_reasons()),
        health=source.state.health,
        **values,
    )


def _replay_part(ask: Ask) -> str:
    return ask.part("letters/replay.html.j2", replay=ask.sources.dead_letters.last)


async def _table(ask: Ask) -> str:
    return _table_part(ask)


async def _replay(ask: Ask) -> str:
    return _replay_part(ask)


def _place_of(ask: Ask) -> tuple[int, int]:
    """Return the partition and the offset that the address names. Raises UnknownItemError."""
    texts = [ask.request.match_info[name] for name in ("partition", "offset")]
    if not all(t.isascii() and t.isdigit() and len(t) <= _OFFSET_DIGITS_MAX for t in texts):
        raise UnknownItemError("there is no such dead letter")
    partition, offset = map(int, texts)
    if partition >= 1 << 31 or offset >= 1 << 63:
        raise UnknownItemError("there is no such dead letter")
    return partition, offset


async def _letter(ask: Ask) -> DeadLetter:
    found = await ask.sources.dead_letters.at(*_place_of(ask))
    if found is None:
        raise UnknownItemError("there is no such dead letter; the topic may have deleted it")
    return found


async def _show_one(ask: Ask) -> web.Response:
    return ask.render("letters/letter.html.j2", letter=await _letter(ask), content=None)


async def _show_content(ask: Ask) -> web.Response:
    """Show key, headers and value of the record as well: text of a stranger, for people who work with texts."""
    if not ask.may_read_texts:
        raise web.HTTPForbidden
    letter = await _letter(ask)
    _log.info(
        "console_dead_letter_read", who=ask.who, partition=letter.partition, offset=letter.offset
    )
    content = {
        "key": _text_of(letter.key),
        "value": _text_of(letter.value),
        "rest_bytes": max(0, (letter.value_bytes or 0) - _CONTENT_BYTES_MAX),
        "headers": [(name, _text_of(value)) for name, value in letter.headers[:_HEADERS_MAX]],
        "headers_left": max(0, len(letter.headers) - _HEADERS_MAX),
    }
    return ask.render("letters/letter.html.j2", letter=letter, content=content)


def _text_of(held: bytes | None) -> str | None:
    return None if held is None else "\n".join(visible_bytes(held, _CONTENT_BYTES_MAX))


async def _begin(ask: Ask) -> web.Response:
    """Begin to replay all dead letters with a reason, or count them."""
    reason = await ask.field("reason")
    if reason not in dead_letter_reasons():
        raise web.HTTPBadRequest(reason="no such reason")
    what = await ask.field("what")
    if what not in ("count", "replay"):
        raise web.HTTPBadRequest(reason="neither count nor replay")
    dry_run = what == "count"
    wanted = DeadLetterFilter(reasons=frozenset([reason]))
    begun = ask.sources.dead_letters.begin(ask.who, wanted, reason=reason, dry_run=dry_run)
    return _begun(ask, begun=begun)


async def _begin_one(ask: Ask) -> web.Response:
    """Begin to replay the record of one dead letter."""
    letter = await _letter(ask)
    wanted = DeadLetterFilter(ids=frozenset([letter.id]))
    place = f"{letter.partition}/{letter.offset}"
    return _begun(ask, begun=ask.sources.dead_letters.begin(ask.who, wanted, place=place))


def _begun(ask: Ask, *, begun: bool) -> web.Response:
    if begun:
        return ask.go("/letters")
    return _page(ask, status=409, because=ask.text("letters.busy"))


async def _stop(ask: Ask) -> web.Response:
    await ask.sources.dead_letters.stop()
    return ask.go("/letters")


LETTERS: Final = Page(
    "letters",
    (
        get("/letters", _show, Role.READ_ONLY),
        get("/letters/{partition}/{offset}", _show_one, Role.READ_ONLY),
        # Reviewers and authors may; a route has one role, so the handler looks.
        post("/letters/{partition}/{offset}/content", _show_content, Role.READ_ONLY, changes=False),
        post("/letters/{partition}/{offset}/replay", _begin_one, Role.LEAD),
        post("/letters/replay", _begin, Role.LEAD),
        post("/letters/stop", _stop, Role.LEAD),
    ),
    {"table": _table, "replay": _replay},
)
