"""What the service knows about its own health; the probes report it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


# A poll lasts at most half a second, except in a rebalance, which has its own deadline in the settings.
STALL_S_MAX = 120.0


@dataclass(slots=True)
class Health:
    """The state that the probes report.

    Attributes:
        turns: returns how often the poll loop has turned.
        engine_ready, joined: both are needed for readiness.
        stalled: why the process is about to end, if it stalled.
        details: shown by ``/healthz``.
    """

    turns: Callable[[], int] = lambda: 0
    engine_ready: bool = False
    joined: bool = False
    stopping: bool = False
    stalled: str | None = None
    stall_s_max: float = STALL_S_MAX
    details: dict[str, Any] = field(default_factory=dict)
    _seen: int = -1
    _seen_at_s: float = field(default_factory=time.monotonic)

    def live(self) -> bool:
        """Whether the poll loop has turned recently. The first call counts as a turn, and so does each while starting.

        A start has deadlines of its own: brokers may be away, and decisions may take minutes to read.
        """
        turns, now_s = self.turns(), time.monotonic()
        if turns != self._seen or not self.joined:
            self._seen, self._seen_at_s = turns, now_s
        return self.stalled is None and now_s - self._seen_at_s < self.stall_s_max

    def ready(self) -> bool:
        """Whether posts are being judged."""
        return self.engine_ready and self.joined and not self.stopping

    def report(self) -> dict[str, Any]:
        """Return everything that is known."""
        return {
            "live": self.live(),
            "ready": self.ready(),
            "engine_ready": self.engine_ready,
            "joined": self.joined,
            "stopping": self.stopping,
            "stalled": self.stalled,
            "poll_turns": self.turns(),
            **self.details,
        }
