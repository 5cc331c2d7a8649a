"""Changes the effort of a policy. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stream_guard.core.vocabulary import Effort
    from stream_guard.policies.policy import Policy
    from stream_guard.settings import CascadeSettings

__all__ = ["with_effort"]


def with_effort(policy: Policy, effort: Effort, settings: CascadeSettings) -> Policy:
    """Return the policy with this effort, and with the ladder's reasoning budget where that is larger."""
    budget = max(
        (rung.reasoning_tokens_max for rung in settings.ladder if rung.effort == effort), default=0
    )
    return replace(
        policy, effort=effort, reasoning_tokens_max=max(budget, policy.reasoning_tokens_max)
    )
