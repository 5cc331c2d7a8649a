"""Computes P(violates) from the engine's log probabilities. Pure.

It is the probability of the token for "violates" against that for "safe", at the label's place. Under a constraint
the engine masks all other tokens, so the two probabilities add up to 1, and one of them is enough. Without a
constraint they are taken relative to their sum, which is what the mask does.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["SURE", "label_probability", "pair_probability", "token_probability"]

SURE: Final = 0.999
"""From this probability of the chosen label on, all other tokens together have at most 1 - SURE.

The chosen label's share of the two is then between its probability and 1, so its probability is right within 1 - SURE.
"""


def token_probability(
    logprobs: Any,  # noqa: ANN401 - vLLM's, in its flat form
    position: int,
    token: int,
) -> float | None:
    """Return the probability of the token that was chosen at a position; None if it was not requested."""
    if logprobs is None or not 0 <= position < len(logprobs):
        return None
    chosen = logprobs[position].get(token)
    return None if chosen is None else min(1.0, math.exp(chosen.logprob))


def label_probability(probability: float, token: int, labels: tuple[int, int]) -> float:
    """Return P(violates) where the two labels' probabilities add up to 1.

    Args:
        probability: of the token that was chosen.
        token: one of the labels.
        labels: ids of the tokens for "safe" and "violates".
    """
    return probability if token == labels[1] else 1.0 - probability


def pair_probability(found: Mapping[int, Any], labels: tuple[int, int]) -> float | None:
    """Return P(violates) relative to both labels together; None if either is missing or both are impossible.

    Args:
        found: by token, vLLM's log probabilities at the label's place.
        labels: ids of the tokens for "safe" and "violates".
    """
    safe, violates = (found.get(label) for label in labels)
    if safe is None or violates is None:
        return None
    highest = max(safe.logprob, violates.logprob)
    if highest == -math.inf:
        return None
    no, yes = (math.exp(each.logprob - highest) for each in (safe, violates))
    return yes / (no + yes)
