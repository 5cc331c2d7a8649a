"""What templates use to show values: times, numbers, and text of other people."""

from __future__ import annotations

import datetime as dt
from typing import Final

from stream_guard.core.visible_text import visible_line, visible_text

__all__ = ["FILTERS", "TEXT_SHOWN_MAX", "cut"]

TEXT_SHOWN_MAX: Final = 600
"""Characters of a text that are shown before "show all"."""


def cut(text: str, characters_max: int = TEXT_SHOWN_MAX) -> tuple[str, str]:
    """Return the beginning of a text, and the rest."""
    return text[:characters_max], text[characters_max:]


def _time(unix_ms: float) -> str:
    """Return a time in UTC, to the second; the number itself where no calendar has it."""
    moment = _moment(unix_ms)
    return f"{unix_ms} ms" if moment is None else moment.strftime("%Y-%m-%d %H:%M:%S")


def _machine_time(unix_ms: float) -> str:
    """Return a time for the attribute ``datetime`` of the element ``time``; empty where no calendar has it."""
    moment = _moment(unix_ms)
    return "" if moment is None else moment.isoformat()


def _moment(unix_ms: float) -> dt.datetime | None:
    try:
        return dt.datetime.fromtimestamp(unix_ms / 1_000, tz=dt.UTC)
    except (ValueError, OverflowError, OSError):
        return None  # a record of strangers can say any number


def _number(value: float, digits: int = 0) -> str:
    """Return a number with separators of thousands."""
    try:
        return f"{value:,.{digits}f}"
    except OverflowError:
        return str(value)  # a record of strangers can say any number


def _share(value: float | None) -> str:
    """Return a share as a percentage; a dash where there is none."""
    return "\N{EN DASH}" if value is None else f"{value:.1%}"


FILTERS: Final = {
    "cut": cut,
    "line": visible_line,
    "machine_time": _machine_time,
    "number": _number,
    "share": _share,
    "time": _time,
    "visible": visible_text,
}
