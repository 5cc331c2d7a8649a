"""Parses and formats times (ISO 8601, RFC 3339). Pure."""

from __future__ import annotations

from datetime import UTC, datetime

from stream_guard.core.errors import SettingsError


def time_text(unix_ms: int) -> str:
    """Return Unix time in ms as RFC 3339 in UTC; as the number if it is outside the calendar."""
    try:
        then = datetime.fromtimestamp(unix_ms // 1_000, tz=UTC)
    except (ValueError, OverflowError, OSError):
        return f"{unix_ms} ms"
    return f"{then:%Y-%m-%dT%H:%M:%S}.{unix_ms % 1_000:03d}Z"


def time_ms(text: str, option: str) -> int:
    """Return Unix time in ms of an ISO 8601 time; one without a zone is UTC.

    Raises:
        SettingsError: the text is not a time; the message names the option.
    """
    try:
        then = datetime.fromisoformat(text)
    except ValueError as error:
        message = f"{option} {text}: not a time; for example 2026-01-31 or 2026-01-31T12:00:00Z"
        raise SettingsError(message) from error
    return round((then if then.tzinfo else then.replace(tzinfo=UTC)).timestamp() * 1_000)
