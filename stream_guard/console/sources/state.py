"""Whether a source can be read: fresh, stale since a time, or away since a time because of something."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from stream_guard.core.clock import Clock

__all__ = ["Health", "Source", "SourceState", "SourceWatch"]


class Health(StrEnum):
    """The state of a source."""

    WAITING = "waiting"
    """Not read yet, since the console started."""
    FRESH = "fresh"
    STALE = "stale"
    """It answers, but what it says is older than it should be."""
    AWAY = "away"
    """It cannot be read."""


@dataclass(slots=True, frozen=True)
class SourceState:
    """The state of one source.

    Attributes:
        name: of the source, as in ``sources.NAME`` of the catalogue.
        health: the state.
        since_ms: since when, Unix time in ms.
        because: why it is stale or away, in words of an error; empty otherwise. Untrusted text.
    """

    name: str
    health: Health
    since_ms: int
    because: str = ""


class Source(Protocol):
    """What every source has."""

    @property
    def state(self) -> SourceState:
        """How it is now."""

    async def run(self) -> None:
        """Read it again and again until cancelled; no error of the other side ends this."""

    async def close(self) -> None:
        """Close its connections."""


class SourceWatch:
    """Keeps a source's state, and since when it has been so.

    Args:
        name: of the source.
        clock: the time.
    """

    def __init__(self, name: str, clock: Clock) -> None:
        self._clock = clock
        self.state = SourceState(name, Health.WAITING, self._now_ms())

    def fresh(self) -> None:
        """Note that the source was read."""
        self._become(Health.FRESH, "")

    def stale(self, because: str) -> None:
        """Note that the source answers with old data."""
        self._become(Health.STALE, because)

    def away(self, because: str) -> None:
        """Note that the source cannot be read."""
        self._become(Health.AWAY, because)

    def _become(self, health: Health, because: str) -> None:
        before = self.state
        since_ms = before.since_ms if before.health is health else self._now_ms()
        self.state = SourceState(before.name, health, since_ms, because)

    def _now_ms(self) -> int:
        return self._clock.wall_ns() // 1_000_000
