"""Turns the values that platforms use for a post's optional fields into one form. Pure.

Each function returns None for a value that it cannot use; the post is judged without it.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final

__all__ = ["identifier", "is_inexact", "label", "time_ms"]

_EXACT_MAX: Final = 1 << 53
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_YEAR_1_MS: Final = -62_135_596_800_000
_YEAR_10000_MS: Final = 253_402_300_800_000
# A number is seconds up to the year 5138, then milliseconds (from 1973), microseconds and nanoseconds.
_UNITS: Final = ((10**11, 1_000), (10**14, 1), (10**17, 1e-3), (math.inf, 1e-6))
# Shorter than 9 digits is a date without separators, or too early for a post.
_NUMBER: Final = re.compile(r"[+-]?[0-9]{9,25}(?:\.[0-9]{1,25})?")
_LEAP_SECOND: Final = re.compile(r"^(.*[T ]\d\d:\d\d):60(.*)$")
_SECONDS: Final = re.compile(r"-?[0-9]{1,12}")
_NANOS: Final = 1_000_000_000
_ZONE_NAME: Final = re.compile(r"(?<=\d) ?(?:UTC|GMT|Z)$")
_TIME_CHARACTERS_MAX: Final = 64


def identifier(value: Any) -> str | None:  # noqa: ANN401 - any JSON value
    """Return an id as text: a string as it is, a number as its digits."""
    if type(value) is str:
        return value
    if type(value) is int:
        return str(value)
    if type(value) is float:
        return str(int(value)) if value.is_integer() and abs(value) < _EXACT_MAX else repr(value)
    return None


def is_inexact(value: Any) -> bool:  # noqa: ANN401 - any JSON value
    """Return whether a number may have lost digits: orjson reads whole numbers beyond 64 bits as floats."""
    return type(value) is float and abs(value) >= _EXACT_MAX


def label(value: Any) -> str | None:  # noqa: ANN401 - any JSON value
    """Return a language, title or other text: also a number as its digits, and the only item of a list."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return identifier(value)


def time_ms(value: Any) -> int | None:  # noqa: ANN401 - any JSON value
    """Return a time as Unix time in ms.

    Understood are ISO 8601 and RFC 3339 (UTC if there is no time zone), leap seconds, RFC 2822, numbers of s, ms, us or
    ns, also as text, MongoDB's ``{"$date": ...}`` (Extended JSON v2), and the ``seconds`` and ``nanos`` of a Protobuf
    timestamp in JSON, as Firestore writes them.
    """
    if isinstance(value, dict):
        return _mongo_ms(value.get("$date")) if "$date" in value else _parts_ms(value)
    if isinstance(value, str):
        return _bounded(_text_ms(value.strip()))
    if type(value) in (int, float):
        return _bounded(_number_ms(value))
    return None


def _parts_ms(value: dict[str, Any]) -> int | None:
    for seconds, nanos in (("seconds", "nanos"), ("_seconds", "_nanoseconds")):
        whole, part = value.get(seconds), value.get(nanos, 0)
        if isinstance(whole, str) and _SECONDS.fullmatch(whole):
            whole = int(whole)  # Protobuf's JSON has 64-bit numbers as text
        if type(whole) is int and type(part) is int and 0 <= part < _NANOS:
            return _bounded(whole * 1_000 + part // 1_000_000)
    return None


def _mongo_ms(value: Any) -> int | None:  # noqa: ANN401 - any JSON value
    if isinstance(value, dict):
        value = value.get("$numberLong")
        if not isinstance(value, str) or not _NUMBER.fullmatch(value):
            return None
        return _bounded(int(float(value)))
    if type(value) is int:
        return _bounded(value)
    return _bounded(_text_ms(value)) if isinstance(value, str) else None


def _bounded(ms: int | None) -> int | None:
    return ms if ms is not None and _YEAR_1_MS <= ms < _YEAR_10000_MS else None


def _number_ms(value: float) -> int | None:
    if not math.isfinite(value):
        return None
    scale = next(scale for limit, scale in _UNITS if abs(value) < limit)
    return int(value * scale)


def _text_ms(text: str) -> int | None:
    if len(text) > _TIME_CHARACTERS_MAX:
        return None
    if _NUMBER.fullmatch(text):
        return _number_ms(float(text))
    leap = _LEAP_SECOND.match(text)
    moment = _moment(f"{leap[1]}:59{leap[2]}" if leap else text)
    if moment is None:  # "2024-01-01 10:00:00 UTC", as databases print it
        moment = _moment(_ZONE_NAME.sub("", text))
    if moment is None:
        return None
    ms = (moment - _EPOCH) // _MILLISECOND
    return ms + 1_000 if leap else ms


def _moment(text: str) -> datetime | None:
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            moment = read(text)
        except (ValueError, OverflowError, TypeError, IndexError, AttributeError):
            continue
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return None
