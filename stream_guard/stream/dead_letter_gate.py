"""Where dead letters pass on their way to the publisher: counted, held while they look like a flood, or stopped.

In a row of failures the first few are written at once, so that an operator can read some.
The others wait until a record passes, or for ``dead_letters.hold_ms``. Where the row reaches a limit, what is held is
given up: its records are not finished, no position passes them, and the next start reads them again. A start
over a backlog of nothing but malformed records therefore writes a few dead letters, and not the backlog.

After a limit was passed, no dead letter passes. One that is held is never forgotten.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from stream_guard.core.errors import LimitError
from stream_guard.stream.dead_letter_limits import STAGES, DeadLetterLimits, LimitTrip, Stage

if TYPE_CHECKING:
    from stream_guard.settings import DeadLetterSettings
    from stream_guard.stream.in_flight import Outgoing
    from stream_guard.telemetry.metrics import Metrics

AT_ONCE: Final = 10
"""How many failures of a row are written without waiting."""


class DeadLetterGate:
    """Lets dead letters pass, holds them, or stops them all.

    Args:
        settings: the limits, and how long to hold.
        metrics: shares, rows and stops are shown here.

    Attributes:
        trip: the limit that was passed; None as long as none was.
    """

    def __init__(self, settings: DeadLetterSettings, metrics: Metrics) -> None:
        self.trip: LimitTrip | None = None
        self._hold_s = settings.hold_ms / 1_000
        self._stops = metrics.dead_letter_stops
        self._limits = {stage: DeadLetterLimits(settings, stage) for stage in STAGES}
        self._shares = {stage: metrics.dead_letter_share.labels(stage) for stage in STAGES}
        self._rows = {stage: metrics.dead_letter_consecutive.labels(stage) for stage in STAGES}
        self._ready: list[Outgoing] = []
        self._held: dict[Stage, list[Outgoing]] = {stage: [] for stage in STAGES}
        self._held_since_s: float | None = None
        self._tripped = asyncio.Event()

    def passed(self, stage: Stage, count: int, now_s: float) -> None:
        """Count successes, which end a row; its held dead letters may be written.

        Args:
            stage: where.
            count: how many.
            now_s: on a clock that never goes back, in s.
        """
        if not count:
            return
        limits = self._limits[stage]
        limits.passed(count, now_s)
        if self._held[stage]:
            self._ready.extend(self._held[stage])
            self._held[stage] = []
            if not any(self._held.values()):
                self._held_since_s = None
        self._show(stage)

    def offer(self, letter: Outgoing, stage: Stage, reason: str, now_s: float) -> bool:
        """Take a dead letter; return False where a limit forbids it, now or before.

        Args:
            letter: to be written.
            stage: where the record failed.
            reason: the error's stable word.
            now_s: on a clock that never goes back, in s.
        """
        if self.trip is not None:
            return False
        limits = self._limits[stage]
        self.trip = limits.failed(reason, now_s)
        self._show(stage)
        if self.trip is not None:
            self._stops.labels(stage, self.trip.setting).inc()
            self._tripped.set()
            return False
        if limits.consecutive <= AT_ONCE:
            self._ready.append(letter)
        else:
            self._held[stage].append(letter)
            if self._held_since_s is None:
                self._held_since_s = now_s
        return True

    def take(self, now_s: float, *, flush: bool = False) -> list[Outgoing]:
        """Return the dead letters that may be written by now; with ``flush``, all that no limit forbids."""
        due_s = self.next_due_s()
        if due_s is not None and (flush or now_s >= due_s):
            self._ready.extend(self.take_held())
        ready, self._ready = self._ready, []
        return ready

    def take_held(self) -> list[Outgoing]:
        """Return what is held, which is the caller's from now on: to be given up once a limit was passed."""
        held = [letter for letters in self._held.values() for letter in letters]
        self._held = {stage: [] for stage in STAGES}
        self._held_since_s = None
        return held

    def next_due_s(self) -> float | None:
        """Return when what is held has waited long enough; None where nothing is held."""
        return None if self._held_since_s is None else self._held_since_s + self._hold_s

    async def wait_tripped(self) -> LimitError:
        """Return the error, once a limit was passed."""
        await self._tripped.wait()
        assert self.trip is not None, "offer() sets both"
        return LimitError(self.trip.message())

    def _show(self, stage: Stage) -> None:
        self._shares[stage].set(self._limits[stage].share)
        self._rows[stage].set(self._limits[stage].consecutive)
