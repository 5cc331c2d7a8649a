"""Reads the fields of an answer from its text, and checks them against the policy. Pure.

Reading is lenient, but nothing is guessed: two labels that contradict each other are no answer.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, get_args

from stream_guard.core.vocabulary import Severity
from stream_guard.judging.contract import Answer
from stream_guard.judging.families.harmony.label_words import (
    Label,
    category_of,
    join_labels,
    read_label,
)
from stream_guard.judging.families.harmony.prompt import OUTCOMES_OF_VIOLATION
from stream_guard.policies.answer_format import CATEGORY_KEYS, LABEL_KEYS, RATIONALE_KEYS

if TYPE_CHECKING:
    from stream_guard.judging.contract import ParseStatus
    from stream_guard.policies.outcomes import Outcome
    from stream_guard.policies.taxonomy import Category, Taxonomy

__all__ = ["RATIONALE_CHARS_MAX", "Fields", "read_json", "read_text", "settle", "undetermined"]

RATIONALE_CHARS_MAX: Final = 1_000
RULE_IDS_READ_MAX: Final = 32
BARE_WORDS_MAX: Final = 3
LABELS_READ_MAX: Final = 16
_LABELS_KEY: Final = "labels"
_RULE_KEYS: Final = ("rule_ids", "rules", "rule_id", "rule")
_NO_CATEGORY: Final = frozenset({"", "none", "null", "n/a"})
# Finds a field in a text that is not JSON. No nested repetition: linear in the text's length.
_WORD: Final = r"""["']?([\w.\-/]{1,64})(?![\w.\-/])"""
_FIELD: Final = r"""["']?\b(?:%s)\b["']?\s{0,8}[:=]\s{0,8}"""
_LABEL: Final = re.compile(_FIELD % "|".join(LABEL_KEYS) + _WORD, re.IGNORECASE)
_LABELLED: Final = re.compile(_FIELD % "|".join(LABEL_KEYS), re.IGNORECASE)
_CATEGORY: Final = re.compile(_FIELD % "|".join(CATEGORY_KEYS) + _WORD, re.IGNORECASE)
_RULES: Final = re.compile(
    _FIELD % "|".join(_RULE_KEYS) + r"(\[[^\]]{0,500}\]?|" + _WORD + ")", re.IGNORECASE
)
_RATIONALE: Final = re.compile(
    _FIELD % "|".join(RATIONALE_KEYS) + r"""(?:"([^"]*)"?|'((?:[^']|(?<=\w)'(?=\w))*)'?)""",
    re.IGNORECASE,
)
_RULE: Final = re.compile(r"[A-Za-z0-9_.\-]{1,64}")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\s]+")
_BARE: Final = re.compile(r"\w+(?:[./-]\w+)*")
_SEVERITIES: Final = get_args(Severity)
_RANKS: Final = {"violates": 2, "undetermined": 1, "safe": 0}


@dataclass(slots=True)
class Fields:
    """An answer's fields as found, before they are checked against the policy.

    Attributes:
        label: the label, or None.
        labels: one label of each kind, as ``D-SP2``; None where the answer has none.
        category, rule_ids, rationale: as written.
        exact: whether the answer has the form that the prompt asks for.
    """

    label: Label | None = None
    labels: tuple[str, ...] | None = None
    category: str | None = None
    rule_ids: list[str] | None = None
    rationale: str | None = None
    exact: bool = False


def undetermined(status: ParseStatus) -> Answer:
    """Return the answer where none could be read."""
    return Answer("undetermined", parse_status=status)


def read_json(text: str, taxonomy: Taxonomy) -> Fields | None:
    """Read the fields of a JSON object, also within other words; None if there is none."""
    exact = _loads(text)
    document = exact if isinstance(exact, dict) else _loads(_embedded(text))
    if not isinstance(document, dict):
        return None
    fields = Fields(
        label=read_label(_first(document, LABEL_KEYS), taxonomy),
        labels=_labels(document.get(_LABELS_KEY), taxonomy),
        category=_category(_first(document, CATEGORY_KEYS)),
        rule_ids=_rule_list(_first(document, _RULE_KEYS)),
        rationale=_text(_first(document, RATIONALE_KEYS)),
    )
    fields.exact = document is exact and _is_as_asked(document, fields, taxonomy)
    return fields


def _is_as_asked(document: dict[str, Any], fields: Fields, taxonomy: Taxonomy) -> bool:
    """Return whether an object has the keys and types that the prompt asks for."""
    if taxonomy.label_kinds:
        key, fits = _LABELS_KEY, _are_of_each_kind(document.get(_LABELS_KEY), fields, taxonomy)
    elif len(taxonomy.outcomes) > OUTCOMES_OF_VIOLATION:
        key = "label"
        fits = fields.label is not None and document.get(key) == fields.label.outcome.word
    else:
        key, fits = "violation", type(document.get("violation")) is int
    return (
        fits
        and document.keys() <= {key, "policy_category", "rule_ids", "rationale"}
        and isinstance(document.get("policy_category"), str | None)
        and isinstance(document.get("rule_ids"), list | None)
    )


def _are_of_each_kind(value: object, fields: Fields, taxonomy: Taxonomy) -> bool:
    """Return whether a value is a list of one label of each kind in the policy's order, or an empty list."""
    if not isinstance(value, list) or value != list(fields.labels or ()):
        return False
    return not value or [label.partition("-")[0] for label in value] == list(taxonomy.label_kinds)


def _loads(text: str) -> Any:  # noqa: ANN401 - whatever JSON there is
    try:
        return json.loads(text, strict=False, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        return None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of these pairs; raise ValueError for a repeated field, which would be two answers."""
    document = dict(pairs)
    if len(document) < len(pairs):
        message = "a field is given twice"
        raise ValueError(message)
    return document


def _embedded(text: str) -> str:
    """Return the text from the first brace to the last, without words and fences around the JSON."""
    begin, end = text.find("{"), text.rfind("}")
    return text[begin : end + 1] if 0 <= begin < end else ""


def _first(document: dict[str, Any], keys: tuple[str, ...]) -> Any:  # noqa: ANN401 - any JSON value
    return next((document[key] for key in keys if key in document), None)


def read_text(text: str, taxonomy: Taxonomy) -> Fields | None:
    """Read fields, or a bare label or category code; None if there is none, or more than one."""
    stated = [read_label(word, taxonomy) for word in _LABEL.findall(text)]
    labels = [label for label in stated if label is not None]
    label = join_labels(labels)
    categories = {word.rstrip(".") for word in _CATEGORY.findall(text)}
    if (labels and label is None) or len(categories) > 1:
        return None
    if labels or categories:
        rationale = _RATIONALE.search(text)
        return Fields(
            label=label,
            category=_category(next(iter(categories), None)),
            rule_ids=[
                rule.rstrip(".")
                for match in _RULES.finditer(text)
                for rule in _RULE.findall(match[1])
            ],
            rationale=_text(rationale[1] or rationale[2]) if rationale else None,
        )
    # If a labelled field cannot be read, the label is not guessed from the rest of the text.
    return None if _LABELLED.search(text) else _read_bare(text, taxonomy)


def _read_bare(text: str, taxonomy: Taxonomy) -> Fields | None:
    whole = read_label(text, taxonomy)
    if whole is not None and whole.category is None:
        return Fields(label=whole)
    words = _BARE.findall(text)
    of_kinds = _labels(words, taxonomy)
    if of_kinds:
        return Fields(labels=of_kinds)
    codes = {word.partition(".")[0] for word in words if taxonomy.category(word.partition(".")[0])}
    codes |= {word for word in words if taxonomy.category(word)}
    if len(codes) == 1:
        rules = [word for word in words if word in taxonomy.rule_ids]
        return Fields(category=codes.pop(), rule_ids=rules)
    # Prose contains "no" and "safe" in passing, so a label counts only if it is nearly alone.
    if codes or not words or len(words) > BARE_WORDS_MAX:
        return None
    found = [label for word in words if (label := read_label(word, taxonomy)) is not None]
    label = join_labels(found)
    return None if label is None else Fields(label=label)


def _labels(value: object, taxonomy: Taxonomy) -> tuple[str, ...] | None:
    """Return the labels of a list or a text, in the order of their kinds; None where there are none."""
    if not taxonomy.label_kinds:
        return None
    if value == []:
        return ()
    if isinstance(value, str):
        value = _BARE.findall(value)
    if not isinstance(value, list):
        return None
    words = [str(word).strip("`*\"' ") for word in value[:LABELS_READ_MAX]]
    order = {kind: number for number, kind in enumerate(taxonomy.label_kinds)}
    found = [word for word in words if "-" in word and word.partition("-")[0] in order]
    return tuple(sorted(dict.fromkeys(found), key=lambda one: order[one.partition("-")[0]])) or None


def _category(value: object) -> str | None:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, str) or value.strip().casefold() in _NO_CATEGORY:
        return None
    return value.strip()


def _rule_list(value: object) -> list[str] | None:
    if isinstance(value, str):
        value = _RULE.findall(value)
    if not isinstance(value, list):
        return None
    return [str(rule) for rule in value if isinstance(rule, str | int | float)]


def _text(value: object) -> str | None:
    if not isinstance(value, str):
        return None
    text = _CONTROL.sub(" ", value).encode("utf-8", "replace").decode().strip()
    return text[:RATIONALE_CHARS_MAX] or None


def settle(fields: Fields, taxonomy: Taxonomy, *, exact: bool) -> Answer:
    """Check the fields against the policy; ``undetermined`` if they contradict each other."""
    if fields.labels is not None:
        return _settle_labels(fields, taxonomy, exact=exact)
    category, as_written = _settle_category(fields, taxonomy)
    dropped = category is None and fields.category is not None
    exact, label = exact and as_written, fields.label
    if label is None:
        if category is None:
            return undetermined("malformed")
        label, exact = Label(taxonomy.outcome_of(category), named=True), False
    if category is not None:
        implied = taxonomy.outcome_of(category)
        if implied.decision != label.outcome.decision:
            if label.outcome.decision != "undetermined":
                return undetermined("malformed")
            # It goes to people all the same. The category is of another outcome.
            category, dropped = None, True
        elif not label.named:
            label = label._replace(outcome=implied, named=True)
        elif implied is not label.outcome:
            exact = False
    words = (label.outcome.word,) if label.named and _has_words(taxonomy) else ()
    status = _status(exact=exact, dropped=dropped)
    return _answer(fields, taxonomy, label, category, labels=words, status=status)


def _settle_category(fields: Fields, taxonomy: Taxonomy) -> tuple[Category | None, bool]:
    """Return the category that the answer names, if the policy has it, and whether it is named as asked."""
    if fields.category is None:
        if fields.label is None or fields.label.category is None:
            return None, True
        return taxonomy.category(fields.label.category), False
    code, _, rule = fields.category.partition(".")
    category = category_of(fields.category, taxonomy) or taxonomy.category(code)
    if category is not None and rule and category.code == code:
        fields.rule_ids = [fields.category, *(fields.rule_ids or [])]
        return category, False
    return category, True


def _has_words(taxonomy: Taxonomy) -> bool:
    """Return whether the decision alone does not tell the policy's label."""
    return len(taxonomy.outcomes) > OUTCOMES_OF_VIOLATION


def _settle_labels(fields: Fields, taxonomy: Taxonomy, *, exact: bool) -> Answer:
    """Read one label of each kind; the worse one decides."""
    labels = fields.labels or ()
    if not labels:
        outcome = _without_category(taxonomy)
        if outcome is None:
            return undetermined("malformed")
        return _answer(
            fields, taxonomy, Label(outcome), None, labels=(), status=_status(exact=exact)
        )
    found = [(label, category_of(label, taxonomy)) for label in labels]
    known = [(label, category) for label, category in found if category is not None]
    kinds = [label.partition("-")[0] for label, _ in known]
    if not known or len(set(kinds)) < len(kinds):
        return undetermined("malformed")
    worst = max((category for _, category in known), key=lambda each: _rank(each, taxonomy))
    outcomes = [taxonomy.outcome_of(category) for _, category in known]
    label = Label(
        taxonomy.outcome_of(worst), escalated=any(outcome.needs_review for outcome in outcomes)
    )
    return _answer(
        fields,
        taxonomy,
        label,
        worst,
        labels=tuple(label for label, _ in known),
        status=_status(
            exact=exact and len(known) == len(taxonomy.label_kinds),
            dropped=len(known) < len(found),
        ),
        escalated=any(category.needs_review for _, category in known),
    )


def _without_category(taxonomy: Taxonomy) -> Outcome | None:
    """Return the outcome of an empty list of labels: one without a category, the safe one first."""
    used = {id(taxonomy.outcome_of(category)) for category in taxonomy.categories}
    free = [outcome for outcome in taxonomy.outcomes if id(outcome) not in used]
    if not free and not taxonomy.complete:
        return next(o for o in taxonomy.outcomes if o.decision == "violates")
    return min(free, key=lambda outcome: _RANKS[outcome.decision], default=None)


def _rank(category: Category, taxonomy: Taxonomy) -> tuple[int, bool, int]:
    """Return how bad a category is: by its decision, then whether it goes to people, then its severity."""
    outcome = taxonomy.outcome_of(category)
    severity = -1 if category.severity is None else _SEVERITIES.index(category.severity)
    return _RANKS[outcome.decision], category.needs_review or outcome.needs_review, severity


def _status(*, exact: bool, dropped: bool = False) -> ParseStatus:
    return "category_dropped" if dropped else "ok" if exact else "repaired"


def _answer(
    fields: Fields,
    taxonomy: Taxonomy,
    label: Label,
    category: Category | None,
    *,
    labels: tuple[str, ...],
    status: ParseStatus,
    escalated: bool = False,
) -> Answer:
    """Return the answer, with the rule ids that the policy has."""
    rules = list(dict.fromkeys((fields.rule_ids or [])[:RULE_IDS_READ_MAX]))
    known = tuple(rule for rule in rules if rule in taxonomy.rule_ids)
    if len(known) < len(rules):
        status = "category_dropped"
    return Answer(
        label.outcome.decision,
        category.code if category else None,
        known,
        fields.rationale,
        status,
        labels,
        needs_review=label.escalated or label.outcome.needs_review or escalated,
    )
