"""Which verdicts a service wants. Pure.

A verdict of unknown severity is never filtered out by severity.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from stream_guard.client.errors import ClientError
from stream_guard.client.verdicts import SEVERITIES
from stream_guard.core.english import did_you_mean
from stream_guard.records.verdict_changes import ALL_POLICIES

if TYPE_CHECKING:
    from collections.abc import Collection

    from stream_guard.client.verdicts import Verdict
    from stream_guard.core.vocabulary import Severity

_DECISIONS: Final = frozenset({"violates", "safe", "undetermined"})


@dataclass(slots=True, frozen=True)
class Wanted:
    """A filter of verdicts; :class:`stream_guard.client.VerdictConsumer` describes the arguments.

    Raises:
        ClientError: an argument is invalid; the message names it.
    """

    policies: Collection[str] | None = None
    decisions: Collection[str] | None = None
    severity_min: Severity | None = None
    shadows: bool = False
    events: bool = False
    provisional: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.policies, str) or isinstance(self.decisions, str):
            message = "policies and decisions must be lists: write ['name'] instead of 'name'"
            raise ClientError(message)
        if unknown := set(self.decisions or ()) - _DECISIONS:
            one = min(unknown)
            message = (
                f"decisions: unknown {one!r}{did_you_mean(one, _DECISIONS)}; use any of "
                f"{', '.join(sorted(_DECISIONS))}"
            )
            raise ClientError(message)
        if self.severity_min is not None and self.severity_min not in SEVERITIES:
            meant = did_you_mean(self.severity_min, SEVERITIES)
            message = (
                f"severity_min: unknown {self.severity_min!r}{meant}; use one of "
                f"{', '.join(SEVERITIES)}"
            )
            raise ClientError(message)

    def _is_ours(self, verdict: Verdict) -> bool:
        """Return whether it is by one of the policies, or about all of them."""
        return self.policies is None or verdict.policy.id in (*self.policies, ALL_POLICIES)

    def wants(self, verdict: Verdict) -> bool:
        """Return whether the filter accepts a verdict."""
        if not self._is_ours(verdict):
            return False
        if verdict.is_human or verdict.event != "verdict":
            # An event of a decision that came late changes nothing.
            late = verdict.event == "verdict" and verdict.decision == "undetermined"
            if self.events or late or verdict.event != "verdict":
                return self.events and not late
        shadow = verdict.provenance.route_mode == "shadow"
        if (shadow and not self.shadows) or (verdict.provisional and not self.provisional):
            return False
        if verdict.escalated and self.events:
            return True  # it may take back what a provisional verdict said
        if self.decisions is not None and verdict.decision not in self.decisions:
            return False
        return self._is_severe(verdict)

    def _is_severe(self, verdict: Verdict) -> bool:
        if self.severity_min is None:
            return True
        if verdict.decision == "safe":
            return False
        return verdict.policy.severity is None or verdict.is_at_least(self.severity_min)
