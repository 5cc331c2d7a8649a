"""Reads the label of an answer: a digit, a word of the policy, or a category's code. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from stream_guard.policies.outcomes import Outcome
    from stream_guard.policies.taxonomy import Category, Taxonomy

__all__ = ["Label", "category_of", "join_labels", "read_label"]

_ONE_WORDS: Final = frozenset(
    {"1", "true", "yes", "violates", "violation", "violating", "invalid", "unsafe"}
)
_ZERO_WORDS: Final = frozenset({"0", "false", "no", "safe", "valid", "allowed"})
_ESCALATION_WORDS: Final = frozenset({"escalate", "escalated", "escalation"})
_MARKS: Final = " \t\r\n`*\"'."


class Label(NamedTuple):
    """What a label says.

    Attributes:
        outcome: of the policy.
        named: whether the label names this outcome, and not only its decision.
        category: the code that the label is, or None.
        escalated: whether the label also asks for a person: ``INVALID + ESCALATE``.
    """

    outcome: Outcome
    named: bool = False
    category: str | None = None
    escalated: bool = False


def read_label(value: object, taxonomy: Taxonomy) -> Label | None:
    """Return what a label says; None if it says nothing.

    The policy's own words come first: "allowed" can be a policy's label for a violation.
    """
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, bool | int | float):
        own = taxonomy.outcome(str(value))  # a policy may say that 0 violates
        if own is not None and not isinstance(value, bool):
            return Label(own, named=True)
        return _of_truth(bool(value), taxonomy) if value in (0, 1) else None
    return _of_word(value, taxonomy) if isinstance(value, str) else None


def _of_word(value: str, taxonomy: Taxonomy) -> Label | None:
    word = value.strip(_MARKS)
    folded = word.casefold()
    for outcome in taxonomy.outcomes:
        if folded == outcome.word.casefold():
            return Label(outcome, named=True)
    category = category_of(word, taxonomy)
    if category is not None:
        return Label(taxonomy.outcome_of(category), named=True, category=category.code)
    if folded in _ONE_WORDS or folded in _ZERO_WORDS:
        return _of_truth(folded in _ONE_WORDS, taxonomy)
    if folded in _ESCALATION_WORDS:
        found = next((o for o in taxonomy.outcomes if o.decision == "undetermined"), None)
        return None if found is None else Label(found, named=True)
    return _escalated(value, taxonomy)


def category_of(code: str, taxonomy: Taxonomy) -> Category | None:
    """Return the category with this code, also one of a kind: ``D-SP2``; None if there is none."""
    found = taxonomy.category(code)
    if found is None and taxonomy.label_kinds:
        kind, _, bare = code.partition("-")
        found = taxonomy.category(bare) if kind in taxonomy.label_kinds else None
    return found


def join_labels(labels: list[Label]) -> Label | None:
    """Return the label that several statements agree on; None if they contradict each other, or say nothing."""
    if not labels:
        return None
    outcomes = {id(label.outcome): label for label in labels}
    if len(outcomes) > 1:
        # A word that names an outcome is more exact than a digit.
        decisions = {label.outcome.decision for label in labels}
        named = {id(label.outcome): label for label in labels if label.named}
        if len(decisions) > 1 or len(named) != 1:
            return None
        return next(iter(named.values()))
    return next((label for label in labels if label.named), labels[0])


def _of_truth(violates: bool, taxonomy: Taxonomy) -> Label:  # noqa: FBT001 - the value itself
    decision = "violates" if violates else "safe"
    own = [outcome for outcome in taxonomy.outcomes if outcome.decision == decision]
    return Label(own[0], named=len(own) == 1)


def _escalated(value: str, taxonomy: Taxonomy) -> Label | None:
    """Read ``INVALID + ESCALATE``: a label, and the wish for a person."""
    parts = [part.strip(_MARKS) for part in re.split(r"\s*[+,;/&]\s*|\s+and\s+", value.strip())]
    if len(parts) != 2:  # noqa: PLR2004 - a label and an escalation
        return None
    rest = [part for part in parts if part.casefold() not in _ESCALATION_WORDS]
    found = read_label(rest[0], taxonomy) if len(rest) == 1 else None
    return None if found is None else found._replace(escalated=True)
