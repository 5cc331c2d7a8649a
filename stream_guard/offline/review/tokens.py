"""Bearer tokens: who asks, with which role. No message shows a token."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Final

from stream_guard.core.errors import SettingsError
from stream_guard.offline.review.queue import ROLES, Person

if TYPE_CHECKING:
    from pathlib import Path

_TOKEN_CHARACTERS_MIN: Final = 32
_FIELDS: Final = 3


class Tokens:
    """The known tokens, as digests.

    Args:
        file: one ``ROLE PSEUDONYM TOKEN`` a line; empty lines and lines that begin with ``#`` are ignored.

    Raises:
        SettingsError: the file cannot be read, has no token, or a line is wrong.
    """

    def __init__(self, file: Path) -> None:
        try:
            lines = file.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            message = f"review.tokens_file {file}: cannot be read: {error}"
            raise SettingsError(message) from error
        self._known: list[tuple[bytes, Person]] = []
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.startswith("#"):
                continue
            fields = line.split()
            if len(fields) != _FIELDS or fields[0] not in ROLES:
                roles = ", ".join(ROLES)
                message = (
                    f"review.tokens_file {file}:{number}: not ROLE PSEUDONYM TOKEN; roles: {roles}"
                )
                raise SettingsError(message)
            role, name, token = fields
            if len(token) < _TOKEN_CHARACTERS_MIN:
                message = f"review.tokens_file {file}:{number}: a token needs {_TOKEN_CHARACTERS_MIN} characters"
                raise SettingsError(message)
            self._known.append((_digest(token), Person(name, role)))
        if not self._known:
            message = f"review.tokens_file {file}: no tokens; add a line ROLE PSEUDONYM TOKEN"
            raise SettingsError(message)

    def person(self, authorization: str | None) -> Person | None:
        """Return who sent this ``Authorization`` header; None where the token is unknown.

        Every known token is compared in constant time, so the time tells nothing.
        """
        scheme, _, token = (authorization or "").partition(" ")
        given, found = _digest(token.strip()), None
        for known, person in self._known:
            if hmac.compare_digest(known, given):
                found = person
        return found if scheme.lower() == "bearer" else None


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
