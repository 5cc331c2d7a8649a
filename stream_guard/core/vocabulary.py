"""The fixed words that several rooms use: decisions, efforts, tiers, severities and modes. Pure."""

from __future__ import annotations

from typing import Literal, TypeAlias

__all__ = [
    "AnswerMode",
    "Decision",
    "Effort",
    "JudgeUnit",
    "Mode",
    "Severity",
    "ThreadKind",
    "Tier",
    "Undetermined",
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
