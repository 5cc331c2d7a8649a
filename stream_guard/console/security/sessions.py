"""Sessions: who is signed in. They are in memory, so a restart signs everybody out."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from stream_guard.console.security.roles import Role
    from stream_guard.core.clock import Clock

__all__ = ["SESSIONS_MAX", "Session", "Sessions"]

SESSIONS_MAX: Final = 10_000
"""At this number, a new session ends the oldest."""


@dataclass(slots=True, frozen=True)
class Session:
    """One person's sign-in.

    Attributes:
        who: the person's pseudonym.
        role: what the person may do.
        csrf: the token that each request that changes something must carry.
        ends_s: when it ends, in s on the monotonic clock.
    """

    who: str
    role: Role
    csrf: str
    ends_s: float

    def owns(self, csrf: str) -> bool:
        """Return whether this is the session's token, in constant time."""
        return hmac.compare_digest(self.csrf.encode(), csrf.encode("utf-8", "surrogateescape"))


class Sessions:
    """The open sessions, by the digest of their secret.

    Args:
        clock: for the lifetime.
        lifetime_s: how long a session lasts, in s.
    """

    def __init__(self, clock: Clock, lifetime_s: float) -> None:
        self._clock = clock
        self._lifetime_s = lifetime_s
        self._open: dict[bytes, Session] = {}  # oldest first

    def __len__(self) -> int:
        return len(self._open)

    def begin(self, who: str, role: Role) -> str:
        """Open a session; return its secret, which the person's browser keeps in a cookie."""
        secret = secrets.token_urlsafe(32)
        ends_s = self._clock.monotonic_s() + self._lifetime_s
        while len(self._open) >= SESSIONS_MAX:
            del self._open[next(iter(self._open))]
        self._open[_digest(secret)] = Session(who, role, secrets.token_urlsafe(32), ends_s)
        return secret

    def find(self, secret: str | None) -> Session | None:
        """Return the session of a cookie; None where there is none or it has ended."""
        if not secret:
            return None
        key = _digest(secret)
        session = self._open.get(key)
        if session is not None and session.ends_s <= self._clock.monotonic_s():
            del self._open[key]
            return None
        return session

    def end(self, secret: str | None) -> None:
        """Close the session of a cookie, if there is one."""
        if secret:
            self._open.pop(_digest(secret), None)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
