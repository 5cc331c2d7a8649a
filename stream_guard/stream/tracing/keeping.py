"""Decides which records are traced although nobody sampled them: those that somebody will ask about. Pure.

It keeps no more of them a second than the settings allow, so that a bad hour floods no collector.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stream_guard.settings import TelemetrySettings


class Keeping:
    """What is always kept, and how much of it.

    Args:
        settings: ``trace_keep``, ``trace_slow_s`` and ``trace_kept_per_s_max``.
        severe: severities of which a violation is kept.
    """

    __slots__ = ("_at_ns", "_kinds", "_left", "_per_s_max", "_severe", "_slow_ns")

    def __init__(self, settings: TelemetrySettings, severe: tuple[str, ...]) -> None:
        self._kinds = frozenset(settings.trace_keep)
        self._severe = frozenset(severe) if "severe" in self._kinds else frozenset()
        self._slow_ns = int(settings.trace_slow_s * 1e9) if "slow" in self._kinds else None
        self._per_s_max = settings.trace_kept_per_s_max
        self._left = float(self._per_s_max)
        self._at_ns = 0

    def verdict(self, decision: str, severity: str | None, age_ns: int) -> str | None:
        """Return why the record of such a verdict is kept; None where it is not.

        Args:
            decision: of the verdict.
            severity: of its category; None for none.
            age_ns: since its record was read, in ns.
        """
        if decision == "undetermined" and "undetermined" in self._kinds:
            return "undetermined"
        if decision == "violates" and severity in self._severe:
            return "severe"
        return self.age(age_ns)

    def dead_letter(self) -> str | None:
        """Return why the record of a dead letter is kept; None where it is not."""
        return "dead_letter" if "dead_letter" in self._kinds else None

    def age(self, age_ns: int) -> str | None:
        """Return why a record of such an age, in ns, is kept; None where it is not."""
        return "slow" if self._slow_ns is not None and age_ns >= self._slow_ns else None

    def allows(self, now_ns: int) -> bool:
        """Whether there is room for one more; it counts as taken.

        Args:
            now_ns: Unix time in ns. A clock that goes back gives nothing, and takes nothing away.
        """
        passed_s = max(0, now_ns - self._at_ns) / 1e9
        self._at_ns = max(now_ns, self._at_ns)
        self._left = min(float(self._per_s_max), self._left + passed_s * self._per_s_max)
        if self._left < 1:
            return False
        self._left -= 1
        return True
