"""Credentials that lie in files, read again for each new connection: a rotated secret needs no restart.

aiokafka takes a password and a TLS context once, for all later connections. Here both are asked at the time of a
connection. A file that is missing or invalid at that time keeps its last good content, and is logged.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import stamina
import structlog
from aiokafka import conn
from aiokafka.abc import AbstractTokenProvider

from stream_guard.core.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

__all__ = ["RotatingContext", "SecretFile", "TokenFile", "ask_passwords"]

_log = structlog.get_logger(__name__)
_AIOKAFKA_CONNECTION = conn.AIOKafkaConnection
_Stamps: TypeAlias = list[tuple[int, int, int] | None]
_refused: dict[tuple[Path, ...], _Stamps] = {}
"""By files, how they were when a client had waited for them in vain. The wait blocks the event loop: once is enough."""


class SecretFile:
    """A file with one secret: the whole file without the line's end.

    Args:
        path: the file.
        setting: the setting that names it, for errors.

    Raises:
        SettingsError: it cannot be read, or it is empty.
    """

    def __init__(self, path: Path, setting: str) -> None:
        self._path = path
        self._setting = setting
        self._last = self._read()
        self._failed = False

    def __repr__(self) -> str:
        return f"SecretFile({str(self._path)!r})"

    def read(self) -> str:
        """Return the secret of now; the last good one if the file cannot be read."""
        try:
            self._last = self._read()
        except SettingsError as error:
            if not self._failed:
                _log.warning("credentials_not_read", error=str(error))
            self._failed = True
        else:
            self._failed = False
        return self._last

    def _read(self) -> str:
        try:
            secret = self._path.read_text("utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8"
            message = (
                f"{self._setting}: {self._path}: {reason}; name a text file that this user may read"
            )
            raise SettingsError(message) from error
        if not secret:
            message = f"{self._setting}: {self._path} is empty; write the secret into it"
            raise SettingsError(message)
        return secret


class TokenFile(AbstractTokenProvider):  # type: ignore[misc] # aiokafka ships no types
    """Reads the token for SASL OAUTHBEARER from a file, such as a projected service account token."""

    def __init__(self, file: SecretFile) -> None:
        self._file = file

    async def token(self) -> str:
        """Return the token of now."""
        return await asyncio.to_thread(self._file.read)


class RotatingContext(ssl.SSLContext):
    """A client's TLS context that is made again when one of its files has changed.

    Args:
        make: returns a new context from the files.
        files: those that it reads.

    Raises:
        SettingsError: the first one cannot be made.
    """

    def __new__(cls, make: Callable[[], ssl.SSLContext], files: Sequence[Path]) -> Self:
        """Return a context of TLS clients."""
        del make, files
        return super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)

    def __init__(self, make: Callable[[], ssl.SSLContext], files: Sequence[Path]) -> None:
        self._make = make
        self._files = files
        # Before the files are read: a change in between is seen at the next connection.
        self._seen = self._stamps()
        self._current = self._first()

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:  # noqa: ANN401 - as ssl declares them
        """Return the TLS side of a new connection; asyncio and uvloop call this for each."""
        self._renew()
        return self._current.wrap_bio(*args, **options)

    def _first(self) -> ssl.SSLContext:
        # A tool that replaces two files one after the other leaves a moment with a pair that does not match. A client
        # that is made in that moment, at a start or later, waits for the other half.
        files = tuple(self._files)
        try:
            for attempt in stamina.retry_context(
                on=SettingsError,
                attempts=1 if _refused.get(files) == self._seen else 6,
                timeout=None,
                wait_initial=0.05,
                wait_max=0.2,
                wait_jitter=0,
            ):
                with attempt:
                    return self._make()
        except SettingsError:
            _refused[files] = self._stamps()
            raise
        raise AssertionError("the last attempt returns or raises")

    def _renew(self) -> None:
        stamps = self._stamps()
        if stamps == self._seen:
            return
        self._seen = stamps
        try:
            self._current = self._make()
        except SettingsError as error:
            # Half of a pair is new: the other half's change is the next attempt.
            _log.warning("credentials_not_read", error=str(error))
        else:
            _log.info("certificates_reloaded", files=[str(file) for file in self._files])

    def _stamps(self) -> _Stamps:
        found: _Stamps = []
        for file in self._files:
            try:
                about = file.stat()
            except OSError:
                found.append(None)
            else:
                found.append((about.st_mtime_ns, about.st_ino, about.st_size))
        return found


class _Connection(_AIOKAFKA_CONNECTION):  # type: ignore[misc, valid-type]
    """aiokafka's connection; a password in a file is read when the connection is made."""

    def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - aiokafka's
        password = options.get("sasl_plain_password")
        if isinstance(password, SecretFile):
            options["sasl_plain_password"] = password.read()
        super().__init__(*args, **options)


def ask_passwords() -> None:
    """Let every connection of this process read its :class:`SecretFile`; a second call changes nothing."""
    assert conn.AIOKafkaConnection in (_AIOKAFKA_CONNECTION, _Connection), (
        "this code depends on aiokafka 0.14"
    )
    conn.AIOKafkaConnection = _Connection
