"""Settings of the breaker: how many actions verdicts may recommend before people look."""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

from pydantic import Field, model_validator

from stream_guard.settings.section import Section

EACH: Final = "*"
"""Instead of a name in a limit: each action, policy or tenant is counted by itself."""
Window: TypeAlias = Literal["hour", "day"]
_Name = Annotated[str, Field(min_length=1, max_length=200)]


class LimitTerms(Section):
    """What a limit counts over, and how much it allows. Every term that is set holds."""

    action: _Name | None = None
    """The action to count; ``*`` counts each action by itself. Unset: all actions together."""
    tenant: _Name | None = None
    """The tenant whose posts count; ``*`` counts each tenant by itself. Unset: all tenants together."""
    window: Window = "hour"
    """The time over which actions are counted: any ``hour`` or any ``day``."""
    actions_max: int | None = Field(None, ge=0)
    """Most actions in the window."""
    share_max: float | None = Field(None, gt=0, le=1)
    """Most actions in the window, as a share of the posts that were judged in it."""
    posts_min: int = Field(1_000, ge=1)
    """With ``share_max``: while fewer posts were judged in the window, the share is of this many."""
    baseline_times_max: float | None = Field(None, gt=0)
    """Most actions in the window, as a multiple of the usual number at this hour of the week."""
    baseline_min: int = Field(20, ge=1)
    """With ``baseline_times_max``: this many actions are allowed in any case."""

    @model_validator(mode="after")
    def _limits_something(self) -> LimitTerms:
        if self.actions_max is None and self.share_max is None and self.baseline_times_max is None:
            raise ValueError(
                "a limit needs actions_max, share_max or baseline_times_max; set at least one"
            )
        return self


class ActionLimit(LimitTerms):
    """A limit of the operator."""

    policy: _Name | None = None
    """The policy whose actions count; ``*`` counts each policy by itself. Unset: all policies together."""


class ActionsSettings(Section):
    """Limits on actions. Past a limit, verdicts recommend a review instead. ``policy.yaml`` may declare limits, too."""

    limits: tuple[ActionLimit, ...] = ()
    """Limits that no policy can lift. Where a policy has limits of its own, both hold."""
    lease_max: int = Field(50, ge=1, le=10_000)
    """Most actions that a replica reserves ahead of its demand. A killed replica's rest counts as used."""
    wait_timeout_s: float = Field(5, gt=0)
    """How long a verdict waits for its reservation, in s; after it the verdict recommends a review."""
    scopes_max: int = Field(10_000, ge=1)
    """Most counters. A tenant or action that would need one more gets reviews instead of actions."""
    baseline_weeks: int = Field(4, ge=2, le=8)
    """How many earlier weeks the usual number of actions is taken from. At least two must be known."""
