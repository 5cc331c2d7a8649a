"""Which verdicts a service wants. Pure.

What it must never do: leave out what might be grave because nobody said how grave it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from stream_guard.client.errors import ClientError
from stream_guard.client.verdicts import SEVERITIES

if TYPE_CHECKING:
    from collections.abc import Collection

    from stream_guard.client.verdicts import Verdict
    from stream_guard.core.vocabulary import Severity

_DECISIONS: Final = frozenset({"violates", "safe", "undetermined"})


@dataclass(slots=True, frozen=True)
class Wanted:
    """What is handed out; see :class:`stream_guard.client.VerdictConsumer` for the meaning of each.

    Raises:
        ClientError: an argument makes no sense; the message names it.
    """

    policies: Collection[str] | None = None
    decisions: Collection[str] | None = None
    severity_min: Severity | None = None
    shadows: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.policies, str) or isinstance(self.decisions, str):
            message = "policies and decisions are lists: write ['name'], not 'name'"
            raise ClientError(message)
        if unknown := set(self.decisions or ()) - _DECISIONS:
            message = f"decisions: {sorted(unknown)} are none; known: {sorted(_DECISIONS)}"
            raise ClientError(message)
        if self.severity_min is not None and self.severity_min not in SEVERITIES:
            message = f"severity_min: {self.severity_min!r} is none; known: {', '.join(SEVERITIES)}"
            raise ClientError(message)

    def wants(self, verdict: Verdict) -> bool:
        """Whether this verdict is one of them."""
        if self.policies is not None and verdict.policy.id not in self.policies:
            return False
        if self.decisions is not None and verdict.decision not in self.decisions:
            return False
        if verdict.provenance.route_mode == "shadow" and not self.shadows:
            return False
        if self.severity_min is None:
            return True
        if verdict.decision == "safe":
            return False
        return verdict.policy.severity is None or verdict.is_at_least(self.severity_min)
