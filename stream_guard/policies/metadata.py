"""Reads ``policy.yaml``: declarations that override what is inferred from the text. Pure.

Every key is optional. Unknown keys and contradictory declarations are rejected.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictStr,
    model_validator,
)

from stream_guard.core.decoding import SAMPLES_MAX, TEMPERATURE_MAX, decoding_fault
from stream_guard.core.vocabulary import AnswerMode, JudgeUnit, Severity, Tier, Undetermined
from stream_guard.policies.answer_format import AnswerFormat, FormatKind, infer_format, make_format
from stream_guard.policies.outcome_meta import (
    Action,
    OutcomeMeta,
    Word,
    check_category_labels,
    merge_outcomes,
)
from stream_guard.policies.taxonomy import Category, Found, Taxonomy, What
from stream_guard.settings.actions import LimitTerms

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stream_guard.policies.yaml_document import Document

__all__ = [
    "CategoryMeta",
    "Gates",
    "LabelsMeta",
    "PolicyMeta",
    "Thresholds",
    "Tier",
    "Undetermined",
    "file_name",
    "is_file_name",
]


_REASONING_TOKENS_MAX: Final = 32_768
_STRICT: Final = ConfigDict(extra="forbid", strict=True, frozen=True)
_FILE_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")


def is_file_name(name: object) -> bool:
    """Return whether this is the name of a file, without a path."""
    return isinstance(name, str) and _FILE_NAME.fullmatch(name) is not None


def file_name(name: str) -> str:
    """Return the name of a file in the policy's folder. Raises ValueError where it is not a plain file name."""
    if not is_file_name(name):
        message = "must be the name of a file in the policy's own folder, without a path"
        raise ValueError(message)
    return name


_Code = Annotated[
    StrictStr, Field(pattern=r"^[A-Za-z][A-Za-z0-9]*(?:[._/-][A-Za-z0-9]+)*$", max_length=40)
]
_Probability = Annotated[float, Field(ge=0.0, le=1.0, strict=False)]


class LabelsMeta(BaseModel):
    """The answer words that the text asks the model for."""

    model_config = _STRICT

    violates: Word
    safe: Word

    @model_validator(mode="after")
    def _differ(self) -> LabelsMeta:
        if self.violates.casefold() == self.safe.casefold():
            message = "labels.violates and labels.safe are the same; give the two words that the text uses"
            raise ValueError(message)
        return self


class CategoryMeta(BaseModel):
    """The declaration of one category; missing keys keep the inferred value.

    ``label`` is the word of its outcome, where the policy has more than two. ``valid_days`` says after how many days a
    violation of this category expires; without it, never.
    """

    model_config = _STRICT

    title: StrictStr | None = Field(default=None, min_length=1, max_length=200)
    violates: StrictBool | None = None
    label: Word | None = None
    severity: Severity | None = None
    action: Action | None = None
    valid_days: Annotated[int, Field(ge=1, le=36_500)] | None = None


class Thresholds(BaseModel):
    """Thresholds of the classifier, in [0, 1].

    A score below ``safe_below`` is safe, one above ``violates_above`` violates, and one between them
    escalates. ``category`` is the category of such a violation. It is optional where the policy has at
    most one violating category.
    """

    model_config = _STRICT

    safe_below: _Probability = 0.0
    violates_above: _Probability = 1.0
    category: _Code | None = None

    @model_validator(mode="after")
    def _upright(self) -> Thresholds:
        if self.safe_below > self.violates_above:
            message = (
                f"safe_below ({self.safe_below}) is greater than violates_above "
                f"({self.violates_above}); swap them"
            )
            raise ValueError(message)
        return self


class Gates(BaseModel):
    """What a new text must reach before it may replace the live one; each in [0, 1], or None for no gate.

    Attributes:
        min_f1: the smallest F1 of "violates" on the golden set.
        max_flips: the largest share of real posts whose decision changes.
        min_agreement: the smallest share of the posts that people decided on which the new text decides as they did.
    """

    model_config = _STRICT

    min_f1: _Probability | None = None
    max_flips: _Probability | None = None
    min_agreement: _Probability | None = None


class PolicyMeta(BaseModel):
    """A ``policy.yaml``.

    Attributes:
        version: a name for people.
        labels: the words for violating and safe.
        outcomes: further labels, by word; null removes one that was inferred by mistake.
        categories: by code; null removes a category that was inferred by mistake.
        categories_complete: whether every violating section has a category. If not, an answer may violate
            without one. By default as inferred.
        effort, reasoning_tokens_max: override the settings.
        temperature, top_p, samples: how answers are drawn, and how many vote; greedy by default.
        action: recommended action where the violating category has none.
        tiers: the tiers of a post, in order.
        classifier: ``builtin:NAME``, or a path relative to this file's folder; by default the setting
            ``cascade.classifier``.
        thresholds: of the classifier; without them it is not used.
        undetermined: recommended action for a post that could not be decided.
        answer: ``native``: the policy is the whole developer message, and its text states the answer's format.
            ``structured``: Stream Guard states it. By default that of the settings.
        answer_format: of a native policy; by default as inferred.
        judge: ``post``: the thread around a post is context. ``thread``: the thread is judged as a whole.
        golden_set: a CSV file of labelled posts in the same folder.
        limits: on the policy's own actions; those of the settings hold as well.
        gates: what a new text must reach before ``policies promote`` makes it live.
    """

    model_config = _STRICT

    version: (
        Annotated[StrictStr, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._+-]+$")]
        | None
    ) = None
    labels: LabelsMeta | None = None
    outcomes: dict[Word, OutcomeMeta | None] = Field(default_factory=dict)
    categories: dict[_Code, CategoryMeta | None] = Field(default_factory=dict)
    categories_complete: StrictBool | None = None
    effort: Literal["low", "medium", "high"] | None = None
    reasoning_tokens_max: Annotated[int, Field(ge=1, le=_REASONING_TOKENS_MAX)] | None = None
    temperature: Annotated[float, Field(ge=0, le=TEMPERATURE_MAX, strict=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, strict=False)] | None = None
    samples: Annotated[int, Field(ge=1, le=SAMPLES_MAX)] | None = None
    action: Action | None = None
    tiers: Annotated[list[Tier], Field(min_length=1)] | None = None
    classifier: Annotated[StrictStr, Field(min_length=1, max_length=500)] | None = None
    thresholds: Thresholds | None = None
    undetermined: Undetermined | None = None
    answer: AnswerMode | None = None
    answer_format: FormatKind | None = None
    judge: JudgeUnit | None = None
    golden_set: Annotated[StrictStr, AfterValidator(file_name)] | None = None
    limits: list[LimitTerms] = Field(default_factory=list)
    gates: Gates = Field(default_factory=Gates)

    @model_validator(mode="after")
    def _tiers_once(self) -> PolicyMeta:
        if self.tiers and len(set(self.tiers)) < len(self.tiers):
            message = "duplicate tier in tiers; keep one"
            raise ValueError(message)
        if self.tiers and "safeguard" in self.tiers[:-1]:
            message = "tiers: safeguard must be the last tier; move it to the end"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _classifier_used(self) -> PolicyMeta:
        if self.classifier is not None and self.thresholds is None:
            message = "classifier has no effect without thresholds; declare thresholds"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _sampled(self) -> PolicyMeta:
        fault = decoding_fault(self.temperature, self.top_p, self.samples)
        if fault is not None:
            raise ValueError(fault)
        return self

    def read_format(self, text: str, taxonomy: Taxonomy) -> AnswerFormat | str:
        """Return the declared or inferred answer format; or why it cannot be read, in words."""
        if self.answer_format is None:
            return infer_format(text, taxonomy)
        return make_format(self.answer_format, text, taxonomy)

    def apply(self, inferred: Taxonomy, document: Document) -> Taxonomy:
        """Return the inferred taxonomy, overridden by the declarations.

        Raises:
            PolicyError: no category violates, ``thresholds.category`` is not a violating category, or an outcome
                contradicts the labels.
        """
        pair = (
            self.labels.violates if self.labels else inferred.violates_label,
            self.labels.safe if self.labels else inferred.safe_label,
        )
        outcomes = merge_outcomes(inferred.outcomes, self.outcomes, pair, document)
        categories = {category.code: category for category in inferred.categories}
        for code, declared in self.categories.items():
            if declared is None:
                categories.pop(code, None)
                continue
            known = categories.get(code) or Category(code, code, violates=True)
            changes = declared.model_dump(exclude_none=True)
            categories[code] = replace(known, **changes)
        labels = {code: meta.label for code, meta in self.categories.items() if meta and meta.label}
        categories = check_category_labels(categories, outcomes, labels, document)
        if categories and not any(category.violates for category in categories.values()):
            message = "no category violates; set violates: true on at least one"
            raise document.error(("categories",), message)
        self._check_threshold_category(document, categories)
        rules = tuple(r for r in inferred.rule_ids if r.partition(".")[0] in categories)
        kept = tuple(
            found
            for found in inferred.found
            if found.what in {"violates_label", "safe_label", "unread"}
            or (found.what == "outcome" and any(found.value == one.word for one in outcomes))
            or not categories.keys().isdisjoint({found.value, found.value.partition(".")[0]})
        )
        declared_found = tuple(self._found(document, categories))
        places = {(found.what, found.value) for found in declared_found}
        whats = {found.what for found in declared_found} & {"violates_label", "safe_label"}
        complete = (
            inferred.complete if self.categories_complete is None else self.categories_complete
        )
        return Taxonomy(
            tuple(categories.values()),
            rules,
            *pair,
            (
                *declared_found,
                *(f for f in kept if (f.what, f.value) not in places and f.what not in whats),
            ),
            complete,
            inferred.label_kinds if complete else (),
            outcomes,
        )

    def _check_threshold_category(
        self, document: Document, categories: Mapping[str, Category]
    ) -> None:
        code = self.thresholds.category if self.thresholds else None
        if code is None or (code in categories and categories[code].violates):
            return
        violating = ", ".join(c.code for c in categories.values() if c.violates) or "none"
        message = f"{code!r} is not a violating category; use one of: {violating}"
        raise document.error(("thresholds", "category"), message)

    def _found(self, document: Document, categories: Mapping[str, Category]) -> Iterator[Found]:
        """Yield the position of each declaration."""
        if self.labels:
            yield _declared(
                document, "violates_label", self.labels.violates, ("labels", "violates")
            )
            yield _declared(document, "safe_label", self.labels.safe, ("labels", "safe"))
        for word, outcome in self.outcomes.items():
            if outcome is not None:
                yield _declared(document, "outcome", word, ("outcomes", word))
        for code, declared in self.categories.items():
            if declared is not None and code in categories:
                yield _declared(document, "category", code, ("categories", code))
                if declared.violates is not None:
                    yield _declared(document, "violates", code, ("categories", code, "violates"))


def _declared(
    document: Document,
    what: What,
    value: str,
    path: tuple[str, ...],
) -> Found:
    return Found(what, value, document.position(path)[0], "declared", "policy.yaml")
