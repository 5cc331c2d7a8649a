"""The fixed words that several rooms use: decisions, efforts, tiers, severities and modes. Pure."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias, get_args

__all__ = [
    "ESCALATION_OUTCOMES",
    "HOPS_MAX",
    "LATE",
    "AnswerMode",
    "Decision",
    "Effort",
    "JudgeUnit",
    "Mode",
    "Severity",
    "ThreadKind",
    "Tier",
    "Undetermined",
    "Unjudged",
]

Decision: TypeAlias = Literal["violates", "safe", "undetermined"]
"""The result of judging a post under one policy."""
Effort: TypeAlias = Literal["low", "medium", "high"]
"""How long the model reasons."""
Mode: TypeAlias = Literal["live", "canary", "shadow"]
"""Which kind of route led to the policy; no one acts on the verdicts of a shadow."""
Severity: TypeAlias = Literal["low", "medium", "high", "critical"]
"""How severe a violation of a category is, as its policy declares."""
Tier: TypeAlias = Literal["duplicates", "rules", "classifier", "safeguard"]
"""The tiers of the cascade, cheapest first."""
Undetermined: TypeAlias = Literal["fail_open", "fail_closed", "hold"]
"""What enforcement should do with an undetermined post."""
ThreadKind: TypeAlias = Literal["title", "earlier", "parent", "quoted"]
"""What a text of a thread is to the post that is judged."""
JudgeUnit: TypeAlias = Literal["post", "thread"]
"""Whether the post alone is judged, or the thread with it."""
AnswerMode: TypeAlias = Literal["native", "structured"]
"""Whether the policy is the whole developer message and states the answer's format, or Stream Guard states it."""
HOPS_MAX: Final = 3
"""Most deployments that a post may pass, by escalation, before its last one."""
Unjudged: TypeAlias = Literal[
    "escalation_loop",  # the post was here before, or passed too many deployments
    "escalation_policy_missing",  # the policy is unknown here
    "escalation_policy_differs",  # it has another version here, and cascade.escalated_policy is same
    "escalation_cut",  # the topic refused the post as too large
    "escalation_undecided",  # it was judged, and nothing was decided
    "escalation_failed",  # it could not be judged
]
"""Why the verdict so far on an escalated post is the final one, as ``provenance.degraded`` names it."""
LATE: Final = "escalation_late"
"""In ``degraded`` of a withheld verdict that is published because of ``cascade.escalation_deadline_s``."""
ESCALATION_OUTCOMES: Final[tuple[str, ...]] = ("decided", LATE, *get_args(Unjudged))
"""What becomes of escalated posts; ``decided``: the larger model's verdict is the final one."""
