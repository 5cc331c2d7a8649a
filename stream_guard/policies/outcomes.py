"""Defines the labels that a policy's text asks for, beyond safe and violating. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from stream_guard.core.vocabulary import Decision

__all__ = ["FoundOutcome", "Outcome"]


@dataclass(slots=True, frozen=True)
class Outcome:
    """One label of a policy.

    Attributes:
        word: as the text and the answers write it.
        decision: what the label means.
        action: recommended to enforcement; None for that of the category or the policy.
        needs_review: whether the label asks for a person.
    """

    word: str
    decision: Decision
    action: str | None = None
    needs_review: bool = False


class FoundOutcome(NamedTuple):
    """An outcome that a text states.

    Attributes:
        outcome: the outcome.
        places: where the text states it: the line, from 1, and the kind of place.
    """

    outcome: Outcome
    places: tuple[tuple[int, str], ...]
