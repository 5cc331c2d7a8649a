"""The fixed words that several rooms use: decisions, efforts, tiers, severities and modes. Pure."""

from __future__ import annotations

from typing import Literal, TypeAlias

__all__ = ["Decision", "Effort", "Mode", "Severity", "Tier", "Undetermined"]

Decision: TypeAlias = Literal["violates", "safe", "undetermined"]
"""What a verdict says of a post under one policy."""
Effort: TypeAlias = Literal["low", "medium", "high"]
"""How long the model reasons."""
Mode: TypeAlias = Literal["live", "canary", "shadow"]
"""How a policy came to judge a post; a shadow's verdicts are acted on by nobody."""
Severity: TypeAlias = Literal["low", "medium", "high", "critical"]
"""How bad a violation of a category is, as its policy declares."""
Tier: TypeAlias = Literal["duplicates", "rules", "classifier", "safeguard"]
"""The tiers of the cascade, cheapest first."""
Undetermined: TypeAlias = Literal["fail_open", "fail_closed", "hold"]
"""What enforcement should do with a post that could not be decided."""
