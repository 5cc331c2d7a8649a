"""Defines the labels that a policy's text asks for, beyond safe and violating. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stream_guard.core.vocabulary import Decision

__all__ = ["Outcome"]


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
