"""Writes the grammar of a native policy's answers, and says whether an answer has the form that it asks for. Pure."""

from __future__ import annotations

import json
from itertools import product
from typing import TYPE_CHECKING, Any, Final

from stream_guard.judging.families.harmony.elements import (
    as_json,
    either,
    free_text,
    list_of,
    sequence,
    text,
)
from stream_guard.judging.families.harmony.prompt import RULE_IDS_MAX
from stream_guard.policies.answer_format import (
    CATEGORY_KEYS,
    CONFIDENCE_KEYS,
    LABEL_KEYS,
    RATIONALE_KEYS,
    RULE_KEYS,
)

if TYPE_CHECKING:
    from stream_guard.policies.answer_format import AnswerFormat, JsonKey
    from stream_guard.policies.outcomes import Outcome
    from stream_guard.policies.taxonomy import Taxonomy

__all__ = ["is_native", "native_answer", "native_bytes_max"]

_CONFIDENCES: Final = ("high", "medium", "low")
_HUNDREDTHS: Final = tuple(f"{number / 100:g}" for number in range(101))


def native_answer(
    form: AnswerFormat, taxonomy: Taxonomy, rationale_tokens_max: int
) -> dict[str, Any]:
    """Return the answer as an element of a structural tag."""
    if form.kind == "json":
        return either(
            [
                _object(form, taxonomy, *case, rationale_tokens_max)
                for case in _cases(form, taxonomy)
            ]
        )
    return either([text(choice) for choice in _choices(form, taxonomy)])


def native_bytes_max(form: AnswerFormat, taxonomy: Taxonomy) -> int:
    """Return the longest answer without its free texts, in bytes."""
    if form.kind != "json":
        return max(len(choice.encode()) for choice in _choices(form, taxonomy))
    longest_rule = max((len(as_json(rule).encode()) + 2 for rule in taxonomy.rule_ids), default=0)
    keys = sum(len(key.name.encode()) + len('"": "", ') for key in form.keys)
    words = (
        len(as_json(word).encode())
        for label, category in _cases(form, taxonomy)
        for word in (label.word, category or "null")
    )
    return 2 + keys + 2 * max(words) + len('"medium"') + RULE_IDS_MAX * longest_rule


def is_native(answer: str, form: AnswerFormat, taxonomy: Taxonomy) -> bool:
    """Return whether an answer's text has exactly the form that the policy asks for."""
    if form.kind != "json":
        return answer in _choices(form, taxonomy)
    try:
        document = json.loads(answer)
    except (ValueError, RecursionError):
        return False
    if not isinstance(document, dict) or list(document) != [key.name for key in form.keys]:
        return False
    return all(_fits(document[key.name], key, taxonomy) for key in form.keys)


def _fits(value: object, key: JsonKey, taxonomy: Taxonomy) -> bool:
    """Return whether a value is of the type that the text shows."""
    if key.name in LABEL_KEYS:
        return any(as_json(value) == _label(key, outcome) for outcome in taxonomy.outcomes)
    if key.name in RULE_KEYS:
        return isinstance(value, list)
    if key.value == "number":
        return isinstance(value, int | float)
    return isinstance(value, str) or (value is None and key.name in CATEGORY_KEYS)


def _choices(form: AnswerFormat, taxonomy: Taxonomy) -> list[str]:
    """Return every possible answer of a form that is not JSON."""
    if form.kind != "labels":
        return list(form.choices)
    of_kinds = (
        [f"{kind}-{category.code}" for category in taxonomy.categories]
        for kind in taxonomy.label_kinds
    )
    return [", ".join(labels) for labels in product(*of_kinds)]


def _cases(form: AnswerFormat, taxonomy: Taxonomy) -> list[tuple[Outcome, str | None]]:
    """Return every outcome with each category, or rule id, that it may come with; None is JSON's null."""
    if not any(key.name in CATEGORY_KEYS for key in form.keys):
        return [(outcome, None) for outcome in taxonomy.outcomes]
    cases: list[tuple[Outcome, str | None]] = []
    for category in taxonomy.categories:
        outcome = taxonomy.outcome_of(category)
        rules = (rule for rule in taxonomy.rule_ids if rule.startswith(f"{category.code}."))
        cases.extend((outcome, name) for name in (category.code, *rules))
    used = {id(outcome) for outcome, _ in cases}
    cases.extend(
        (outcome, None)
        for outcome in taxonomy.outcomes
        # The guide's form: null where nothing is violated. A wrong category is worse than none.
        if outcome.decision != "violates" or id(outcome) not in used or not taxonomy.complete
    )
    return cases


def _object(
    form: AnswerFormat,
    taxonomy: Taxonomy,
    outcome: Outcome,
    category: str | None,
    rationale_tokens_max: int,
) -> dict[str, Any]:
    colon, comma = (": ", ", ") if form.spaced else (":", ",")
    elements = [text("{")]
    for number, key in enumerate(form.keys):
        elements.append(text(f"{comma if number else ''}{as_json(key.name)}{colon}"))
        elements.append(_value(key, taxonomy, outcome, category, comma, rationale_tokens_max))
    return sequence([*elements, text("}")])


def _value(
    key: JsonKey,
    taxonomy: Taxonomy,
    outcome: Outcome,
    category: str | None,
    comma: str,
    rationale_tokens_max: int,
) -> dict[str, Any]:
    if key.name in LABEL_KEYS:
        return text(_label(key, outcome))
    if key.name in CATEGORY_KEYS:
        return text(as_json(category))
    if key.name in RULE_KEYS:
        code = (
            (category or "").partition(".")[0]
            if taxonomy.category(category or "") is None
            else category
        )
        own = [rule for rule in taxonomy.rule_ids if code and rule.startswith(f"{code}.")]
        return list_of(own, RULE_IDS_MAX, separator=comma)
    if key.name in CONFIDENCE_KEYS:
        words = [as_json(word) for word in _CONFIDENCES] if key.value == "string" else _HUNDREDTHS
        return either([text(word) for word in words])
    assert key.name in RATIONALE_KEYS, "every known key has a value"
    return sequence([text('"'), free_text(rationale_tokens_max), text('"')])


def _label(key: JsonKey, outcome: Outcome) -> str:
    """Return the value of a label's key for an outcome, as JSON."""
    violates = outcome.decision == "violates"
    if key.value == "boolean":
        return "true" if violates else "false"
    if key.value == "digit":
        return outcome.word if outcome.word in {"0", "1"} else str(int(violates))
    return as_json(outcome.word)
