"""The export of statements for the EU's DSA Transparency Database: one archive with statements and errors."""

from __future__ import annotations

import asyncio
import datetime as dt
import io
import zipfile
from typing import TYPE_CHECKING, Any, Final

import orjson
import structlog
from aiohttp import web

from stream_guard.core.errors import SettingsError, StreamGuardError
from stream_guard.kafka.bounds import Bound
from stream_guard.offline.export.dsa import Statements
from stream_guard.offline.export.dsa_run import export as make_statements
from stream_guard.offline.export.dsa_run import json_lines

if TYPE_CHECKING:
    from pathlib import Path

    from stream_guard.console.ask import Ask
    from stream_guard.offline.export.dsa_run import Exported

__all__ = ["export", "show_export"]

_DAY: Final = dt.timedelta(days=1)
_FIRST: Final = dt.date(1970, 1, 1)
_log = structlog.get_logger(__name__)


async def show_export(ask: Ask) -> web.Response:
    """Show the form."""
    now = dt.datetime.fromtimestamp(ask.parts.clock.wall_ns() / 1e9, tz=dt.UTC).date()
    return _form(ask, (now - _DAY).isoformat(), (now - _DAY).isoformat())


def _form(ask: Ask, first: str, last: str, *, status: int = 200, because: str = "") -> web.Response:
    console = ask.parts.settings.console
    return ask.render(
        "audit/export.html.j2",
        status=status,
        because=because,
        first=first[:10],
        last=last[:10],
        configured=console.dsa_mapping is not None,
        offsets_max=console.export_offsets_max,
    )


async def export(ask: Ask) -> web.Response:
    """Answer with the statements for the verdicts of some days, and with those that could not be mapped."""
    first, last = await ask.field("first"), await ask.field("last")
    try:
        begin, end = _days(first, last)
        statements = await asyncio.to_thread(_statements, ask.parts.settings.console.dsa_mapping)
        verdicts = await ask.sources.audit.verdicts(_bound(begin), _bound(end + _DAY))
        made, content = await asyncio.to_thread(_archive, statements, verdicts, first, last)
    except SettingsError as error:
        return _form(ask, first, last, status=422, because=str(error))
    except StreamGuardError as error:
        return _form(ask, first, last, status=503, because=str(error))
    _log.info(
        "console_dsa_export",
        who=ask.who,
        first=begin.isoformat(),
        last=end.isoformat(),
        statements=len(made.statements),
        errors=len(made.errors),
    )
    name = f"dsa-{begin.isoformat()}-{end.isoformat()}.zip"
    return web.Response(
        body=content,
        content_type="application/zip",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


def _days(first: str, last: str) -> tuple[dt.date, dt.date]:
    begin, end = _day(first, "the first day"), _day(last, "the last day")
    if end < begin:
        raise SettingsError("the last day is before the first day")
    return begin, end


def _day(text: str, name: str) -> dt.date:
    try:
        day = dt.date.fromisoformat(text)
    except ValueError:
        raise SettingsError(f"{name} is no date such as 2026-01-31") from None
    if not _FIRST <= day < dt.date.max:
        raise SettingsError(f"{name} is out of range")
    return day


def _bound(day: dt.date) -> Bound:
    moment = dt.datetime.combine(day, dt.time(), tzinfo=dt.UTC)
    return Bound(time_ms=round(moment.timestamp() * 1_000))


def _statements(mapping: Path | None) -> Statements:
    if mapping is None:
        raise SettingsError("console.dsa_mapping is not set")
    try:
        return Statements(mapping.read_bytes(), str(mapping))
    except OSError as error:
        raise SettingsError(f"console.dsa_mapping {mapping}: {error.strerror}") from error


def _archive(
    statements: Statements, verdicts: list[dict[str, Any]], first: str, last: str
) -> tuple[Exported, bytes]:
    """Return the statements and errors of the verdicts, and the archive's bytes."""
    made = make_statements(statements, verdicts)
    summary = {
        "first_day": first,
        "last_day": last,
        "verdicts": len(verdicts),
        "statements": len(made.statements),
        "errors": len(made.errors),
        "not_owed": made.not_owed,
        "undecided": made.undecided,
    }
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("statements.jsonl", json_lines(made.statements))
        archive.writestr("errors.jsonl", json_lines(made.errors))
        archive.writestr("summary.json", orjson.dumps(summary, option=orjson.OPT_INDENT_2))
    return made, out.getvalue()
