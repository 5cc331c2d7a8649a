"""Defines how the tokens of an answer are chosen: greedily, or drawn at random, once or several times. Pure."""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["GREEDY", "SAMPLES_MAX", "TEMPERATURE_MAX", "Decoding", "decoding_fault"]

TEMPERATURE_MAX: Final = 2.0
SAMPLES_MAX: Final = 25
"""Most answers to one prompt."""


class Decoding(NamedTuple):
    """How the tokens of an answer are chosen.

    Attributes:
        temperature: divides the logits before a token is drawn; 0 takes the most probable token.
        top_p: tokens are drawn from the smallest set with at least this probability (Holtzman et al. 2020, "The
            Curious Case of Neural Text Degeneration").
        samples: how many answers to one prompt vote on the decision (Wang et al. 2023, "Self-Consistency Improves
            Chain of Thought Reasoning in Language Models").
    """

    temperature: float = 0.0
    top_p: float = 1.0
    samples: int = 1

    def changed(
        self, temperature: float | None, top_p: float | None, samples: int | None
    ) -> Decoding:
        """Return it with these values, each of them unless it is None. At temperature 0 the others have no use."""
        changed = Decoding(
            self.temperature if temperature is None else temperature,
            self.top_p if top_p is None else top_p,
            self.samples if samples is None else samples,
        )
        return changed if changed.temperature > 0 else GREEDY


GREEDY: Final = Decoding()


def decoding_fault(
    temperature: float | None, top_p: float | None, samples: int | None
) -> str | None:
    """Return why these values contradict each other, and what to do; None where they do not."""
    if temperature:
        return None
    if samples is not None and samples > 1:
        return (
            "samples has no effect without a temperature: all samples are equal; set temperature: 1"
        )
    if top_p is not None and top_p < 1:
        return "top_p has no effect without a temperature; set temperature: 1, or remove top_p"
    return None
