"""Bearer tokens: who asks, with which role. No message shows a token."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Final, NamedTuple

from stream_guard.core.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["ROLES", "Person", "Tokens"]

ROLES: Final = ("reviewer", "lead", "read-only")
"""A reviewer decides leased items. A lead also decides leased and decided ones and sees all decisions."""
_TOKEN_CHARACTERS_MIN: Final = 32
_FIELDS: Final = 3


class Person(NamedTuple):
    """Who asks: a pseudonym, and a role."""

    id: str
    role: str = "reviewer"


class Tokens:
    """The known tokens, as digests.

    Args:
        file: one ``ROLE PSEUDONYM TOKEN`` a line; empty lines and lines that begin with ``#`` are ignored.
        roles: that a line may name.
        setting: which names the file, for messages.

    Raises:
        SettingsError: the file cannot be read, has no token, or a line is wrong.
    """

    def __init__(
        self, file: Path, roles: Sequence[str] = ROLES, setting: str = "review.tokens_file"
    ) -> None:
        try:
            lines = file.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            message = f"{setting} {file}: cannot be read: {error}"
            raise SettingsError(message) from error
        self._known: list[tuple[bytes, Person]] = []
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.startswith("#"):
                continue
            fields = line.split()
            if len(fields) != _FIELDS or fields[0] not in roles:
                known = ", ".join(roles)
                message = f"{setting} {file}:{number}: not ROLE PSEUDONYM TOKEN; roles: {known}"
                raise SettingsError(message)
            role, name, token = fields
            if len(token) < _TOKEN_CHARACTERS_MIN:
                message = (
                    f"{setting} {file}:{number}: a token needs {_TOKEN_CHARACTERS_MIN} characters"
                )
                raise SettingsError(message)
            self._known.append((_digest(token), Person(name, role)))
        if not self._known:
            message = f"{setting} {file}: no tokens; add a line ROLE PSEUDONYM TOKEN"
            raise SettingsError(message)

    def person(self, authorization: str | None) -> Person | None:
        """Return who sent this ``Authorization`` header; None where the token is unknown."""
        scheme, _, token = (authorization or "").partition(" ")
        found = self.owner(token)
        return found if scheme.lower() == "bearer" else None

    def owner(self, token: str) -> Person | None:
        """Return whose token this is; None where it is unknown.

        Every known token is compared in constant time, so the time tells nothing.
        """
        given, found = _digest(token.strip()), None
        for known, person in self._known:
            if hmac.compare_digest(known, given):
                found = person
        return found


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
