"""Reads the outcomes that ``policy.yaml`` declares, and merges them with the inferred ones. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictStr

from stream_guard.core.english import did_you_mean
from stream_guard.core.vocabulary import Decision
from stream_guard.policies.outcomes import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_guard.policies.taxonomy import Category
    from stream_guard.policies.yaml_document import Document

__all__ = [
    "OUTCOMES_MAX",
    "Action",
    "OutcomeMeta",
    "Word",
    "check_category_labels",
    "merge_outcomes",
]

OUTCOMES_MAX: Final = 12
"""The most outcomes of one policy; a model tells few labels apart."""
Word = Annotated[StrictStr, Field(min_length=1, max_length=40, pattern=r'^[^\s"\\]+$')]
Action = Annotated[StrictStr, Field(min_length=1, max_length=40, pattern=r"^[a-z][a-z0-9_.-]*$")]


class OutcomeMeta(BaseModel):
    """The declaration of one outcome.

    Attributes:
        decision: what the label means.
        action: recommended to enforcement; by default that of the category or the policy.
        needs_review: whether the label asks for a person; by default where the decision is ``undetermined``.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    decision: Decision
    action: Action | None = None
    needs_review: StrictBool | None = None


def merge_outcomes(
    inferred: tuple[Outcome, ...],
    declared: Mapping[str, OutcomeMeta | None],
    pair: tuple[str, str],
    document: Document,
) -> tuple[Outcome, ...]:
    """Return all outcomes, those for violating and safe first.

    Args:
        inferred: of the text.
        declared: by word; None removes an inferred outcome.
        pair: the words for violating and for safe.
        document: for positions in errors.

    Raises:
        PolicyError: there are too many, or a word of the pair is removed or gets another decision.
    """
    violates, safe = pair
    outcomes = {violates: Outcome(violates, "violates"), safe: Outcome(safe, "safe")}
    # The words of the text that declared labels replace are no outcomes.
    outcomes |= {one.word: one for one in inferred[2:] if one.word not in outcomes}
    for word, meta in declared.items():
        own = outcomes.get(word)
        if word in pair and (meta is None or (own is not None and meta.decision != own.decision)):
            message = (
                f"{word!r} is the policy's label for {'violating' if word == violates else 'safe'}; "
                "declare other words under labels to change that"
            )
            raise document.error(("outcomes", word), message)
        if meta is None:
            outcomes.pop(word, None)
            continue
        review = meta.decision == "undetermined" if meta.needs_review is None else meta.needs_review
        outcomes[word] = Outcome(word, meta.decision, meta.action, review)
    if len(outcomes) > OUTCOMES_MAX:
        message = f"{len(outcomes)} outcomes, over the limit of {OUTCOMES_MAX}; declare fewer"
        raise document.error(("outcomes",), message)
    return tuple(outcomes.values())


def check_category_labels(
    categories: Mapping[str, Category],
    outcomes: tuple[Outcome, ...],
    declared: Mapping[str, str],
    document: Document,
) -> dict[str, Category]:
    """Return the categories with the stance of their outcomes.

    Args:
        categories: by code.
        outcomes: of the policy.
        declared: the labels that ``policy.yaml`` gives to categories, by code.
        document: for positions in errors.

    Raises:
        PolicyError: a category's declared label is no outcome.
    """
    words = {outcome.word: outcome for outcome in outcomes}
    checked = {}
    for code, category in categories.items():
        if category.label is not None and category.label not in words:
            if code in declared:
                known = ", ".join(words)
                meant = did_you_mean(category.label, words)
                message = (
                    f"{category.label!r} is not an outcome{meant}; use one of: {known}, or declare "
                    "it under outcomes"
                )
                raise document.error(("categories", code, "label"), message)
            checked[code] = replace(category, label=None)
        elif code in declared:
            violates = words[declared[code]].decision != "safe"
            checked[code] = replace(category, violates=violates)
        else:
            checked[code] = category
    return checked
