"""Writes the grammar for one policy's completions, as a structural tag for xgrammar. Pure.

The tag spells out the whole completion: the analysis channel with an exact token budget, then the final channel with
an answer that the policy allows. Two constructs are avoided. After an optional character before a character class,
xgrammar 0.2.8 unmasks tokens that it then rejects. A bounded JSON string takes seconds to compile against 200,000
tokens; the constructs used here take tens of milliseconds.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from stream_guard.judging.families.harmony.elements import (
    as_json,
    either,
    free_text,
    list_of,
    sequence,
    text,
    token,
)
from stream_guard.judging.families.harmony.native import native_answer, native_bytes_max
from stream_guard.judging.families.harmony.prompt import OUTCOMES_OF_VIOLATION, RULE_IDS_MAX

if TYPE_CHECKING:
    from stream_guard.judging.families.family import Budget
    from stream_guard.judging.families.harmony.tokens import ControlTokens
    from stream_guard.policies.answer_format import AnswerFormat
    from stream_guard.policies.outcomes import Outcome
    from stream_guard.policies.taxonomy import Taxonomy

_HEADERS: Final = "analysisassistantfinal json"
_HEADER_MARKERS: Final = 8
"""Channel, message, end, start, channel, constrain, message, return."""


class Combination(NamedTuple):
    """An outcome, and the category that it may come with; None is JSON's null."""

    outcome: Outcome
    category: str | None
    rule_ids: tuple[str, ...]


def combinations(taxonomy: Taxonomy) -> list[Combination]:
    """Return every pair of outcome and category that the policy allows, with the category's rule ids.

    An outcome without any category gets a pair with the category None.
    """
    pairs = [
        Combination(
            taxonomy.outcome_of(category),
            category.code,
            tuple(rule for rule in taxonomy.rule_ids if rule.startswith(f"{category.code}.")),
        )
        for category in taxonomy.categories
    ]
    pairs.extend(
        Combination(outcome, None, ())
        for outcome in taxonomy.outcomes
        if all(pair.outcome is not outcome for pair in pairs)
        # A wrong category is worse than none, so null stays possible where one may be missing.
        or (outcome.decision == "violates" and not taxonomy.complete)
    )
    return pairs


def structural_tag(
    taxonomy: Taxonomy, tokens: ControlTokens, budget: Budget, native: AnswerFormat | None = None
) -> str:
    """Return the tag, as JSON, for completions under a policy with this taxonomy.

    Args:
        taxonomy: of the policy.
        tokens: the model's control tokens.
        budget: of the reasoning and of free texts in the answer.
        native: the format of the answer, if the policy states it.
    """
    as_object: list[dict[str, Any]] = [
        {
            "type": "optional",
            "content": sequence([text(" "), token(tokens.constrain), text("json")]),
        }
    ]
    elements = [
        *(token(tokens.channel), text("analysis"), token(tokens.message)),
        {
            "type": "any_tokens",
            "exclude_tokens": sorted(tokens.every),
            "max_tokens": budget.reasoning_tokens_max,
        },
        *(token(tokens.end), token(tokens.start), text("assistant")),
        *(token(tokens.channel), text("final")),
        *(as_object if may_say_json(native) else []),
        token(tokens.message),
        answer_element(taxonomy, budget.rationale_tokens_max, native),
    ]
    return _tag(sequence(elements))


def answer_tag(
    taxonomy: Taxonomy, rationale_tokens_max: int, native: AnswerFormat | None = None
) -> str:
    """Return the tag, as JSON, for the content of the final channel alone."""
    return _tag(answer_element(taxonomy, rationale_tokens_max, native))


def _tag(element: dict[str, Any]) -> str:
    return json.dumps({"type": "structural_tag", "format": element}, separators=(",", ":"))


def may_say_json(native: AnswerFormat | None) -> bool:
    """Return whether the final channel's header may say that the answer is JSON."""
    return native is None or native.kind == "json"


def answer_element(
    taxonomy: Taxonomy, rationale_tokens_max: int, native: AnswerFormat | None = None
) -> dict[str, Any]:
    """Return the content of the final channel as an element of a structural tag."""
    if native is not None:
        return native_answer(native, taxonomy, rationale_tokens_max)
    return sequence(
        [
            _answer(taxonomy),
            text(',"rationale":"'),
            free_text(rationale_tokens_max),
            text('"}'),
        ]
    )


def completion_tokens_max(
    taxonomy: Taxonomy, budget: Budget, native: AnswerFormat | None = None
) -> int:
    """Return a bound on a completion's tokens: both budgets, and one token for each byte of the fixed text."""
    if native is None:
        fixed = len(_longest(taxonomy).encode()) + len(',"rationale":""}')
    else:
        fixed = native_bytes_max(native, taxonomy)
    return (
        budget.reasoning_tokens_max
        + budget.rationale_tokens_max
        + fixed
        + len(_HEADERS)
        + _HEADER_MARKERS
    )


def _longest(taxonomy: Taxonomy) -> str:
    """Return the longest answer up to the rationale."""
    if taxonomy.label_kinds:
        code = max((category.code for category in taxonomy.categories), key=_bytes)
        start = _labels_start([f"{kind}-{code}" for kind in taxonomy.label_kinds])
        return start + (_rules_key(taxonomy) and _rules_key(taxonomy) + _most_rules(taxonomy))
    heads = (
        _start(pair, taxonomy) + (_most_rules(taxonomy) if _rules_key(taxonomy) else "")
        for pair in combinations(taxonomy)
    )
    return max(heads, key=_bytes)


def _bytes(text: str) -> int:
    return len(text.encode())


def _most_rules(taxonomy: Taxonomy) -> str:
    return as_json([max(taxonomy.rule_ids, key=_bytes)] * RULE_IDS_MAX)


def _answer(taxonomy: Taxonomy) -> dict[str, Any]:
    """Return the answer up to the rationale."""
    if taxonomy.label_kinds:
        return _labels(taxonomy)
    return either([_head(pair, taxonomy) for pair in combinations(taxonomy)])


def _labels(taxonomy: Taxonomy) -> dict[str, Any]:
    """Return the answer up to the rationale, with one label of each kind, or none where an outcome has none."""
    elements: list[dict[str, Any]] = []
    for kind in taxonomy.label_kinds:
        labels = [text(as_json(f"{kind}-{category.code}")) for category in taxonomy.categories]
        elements += [text(","), either(labels)] if elements else [either(labels)]
    some = sequence([text('{"labels":['), *elements, text("]")])
    none = any(pair.category is None for pair in combinations(taxonomy))
    start = either([some, text(_labels_start([]))]) if none else some
    if not _rules_key(taxonomy):
        return start
    return sequence([start, text(_rules_key(taxonomy)), list_of(taxonomy.rule_ids, RULE_IDS_MAX)])


def _labels_start(labels: list[str]) -> str:
    return f'{{"labels":{as_json(labels)}'


def _start(pair: Combination, taxonomy: Taxonomy) -> str:
    if len(taxonomy.outcomes) > OUTCOMES_OF_VIOLATION:
        start = f'{{"label":{as_json(pair.outcome.word)}'
    else:
        start = f'{{"violation":{int(pair.outcome.decision == "violates")}'
    if taxonomy.categories:
        start += f',"policy_category":{as_json(pair.category)}'
    return start + _rules_key(taxonomy)


def _rules_key(taxonomy: Taxonomy) -> str:
    return ',"rule_ids":' if taxonomy.categories and taxonomy.rule_ids else ""


def _head(pair: Combination, taxonomy: Taxonomy) -> dict[str, Any]:
    """Return the answer up to the rationale, for one outcome and category."""
    start = text(_start(pair, taxonomy))
    return (
        sequence([start, list_of(pair.rule_ids, RULE_IDS_MAX)]) if _rules_key(taxonomy) else start
    )
