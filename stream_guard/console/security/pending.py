"""Sign-ins that have begun at an issuer: each is finished once, soon, and by the browser that began it."""

from __future__ import annotations

import hmac
import secrets
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from stream_guard.core.clock import Clock

__all__ = ["PENDING_MAX", "PENDING_S", "Pending", "PendingSignIns"]

PENDING_S: Final = 600.0
"""How long a person may take at the issuer, in s."""
PENDING_MAX: Final = 100_000
"""At this number, a new one ends the oldest; about 70 MB. Nobody must be signed in to begin one: with a small number,
one visitor could end those of all others while they are at the issuer."""


class Pending(NamedTuple):
    """A sign-in that has begun.

    Attributes:
        nonce: that the ID token must have.
        verifier: that proves to the issuer that we began it (PKCE).
        browser: the secret of the browser that began it.
        redirect_url: where the issuer sends the person back to.
        ends_s: when it ends, in s on the monotonic clock.
    """

    nonce: str
    verifier: str
    browser: str
    redirect_url: str
    ends_s: float


class PendingSignIns:
    """The sign-ins that have begun, by their state.

    Args:
        clock: for their end.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._open: dict[str, Pending] = {}  # oldest first

    def __len__(self) -> int:
        return len(self._open)

    def begin(self, redirect_url: str) -> tuple[str, Pending]:
        """Return a new state, and the sign-in."""
        now_s = self._clock.monotonic_s()
        while self._open:
            oldest = next(iter(self._open))
            if len(self._open) < PENDING_MAX and self._open[oldest].ends_s > now_s:
                break
            del self._open[oldest]
        state = secrets.token_urlsafe(32)
        pending = Pending(
            nonce=secrets.token_urlsafe(32),
            verifier=secrets.token_urlsafe(48),
            browser=secrets.token_urlsafe(32),
            redirect_url=redirect_url,
            ends_s=now_s + PENDING_S,
        )
        self._open[state] = pending
        return state, pending

    def finish(self, state: str, browser: str) -> Pending | None:
        """Return the sign-in of a state, which ends; None where it is unknown, too old, or of another browser."""
        pending = self._open.pop(state, None)
        if pending is None or pending.ends_s <= self._clock.monotonic_s():
            return None
        same = hmac.compare_digest(
            pending.browser.encode(), browser.encode("utf-8", "surrogateescape")
        )
        return pending if same else None
