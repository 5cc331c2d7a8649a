"""Parses the beginning or end of a range of records: an offset or a time. Pure."""

from __future__ import annotations

from typing import NamedTuple

from stream_guard.core.errors import SettingsError
from stream_guard.core.times import time_ms


class Bound(NamedTuple):
    """One of the two is set: an offset, the same in every partition, or Unix time in ms."""

    offset: int | None = None
    time_ms: int | None = None


def read_bound(text: str | None, option: str) -> Bound | None:
    """Return the bound of an option: digits are an offset, everything else is an ISO 8601 time; None for none.

    Raises:
        SettingsError: it is neither; names the option.
    """
    if text is None:
        return None
    if text.isascii() and text.isdigit():
        return Bound(offset=int(text))
    try:
        return Bound(time_ms=time_ms(text, option))
    except SettingsError as error:
        message = (
            f"{option} {text}: neither an offset nor a time; for example 120000, or 2026-01-31, or "
            "2026-01-31T12:00:00Z"
        )
        raise SettingsError(message) from error
