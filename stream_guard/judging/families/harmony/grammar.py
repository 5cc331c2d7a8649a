"""Writes the grammar for one policy's completions, as a structural tag for xgrammar. Pure.

The tag spells out the whole completion: the analysis channel with an exact token budget, then the final channel with
an answer that the policy allows. Two constructs are avoided. After an optional character before a character class,
xgrammar 0.2.8 unmasks tokens that it then rejects. A bounded JSON string takes seconds to compile against 200,000
tokens; the constructs used here take tens of milliseconds.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from stream_guard.judging.families.harmony.prompt import OUTCOMES_OF_VIOLATION, RULE_IDS_MAX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.judging.families.family import Budget
    from stream_guard.judging.families.harmony.tokens import ControlTokens
    from stream_guard.policies.outcomes import Outcome
    from stream_guard.policies.taxonomy import Taxonomy

# xgrammar matches text: without "<|" here it would accept a marker, spelled out in letters.
_RATIONALE_EXCLUDES: Final = ('"', "\\", "\n", "\r", "\t", "<|")
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


def structural_tag(taxonomy: Taxonomy, tokens: ControlTokens, budget: Budget) -> str:
    """Return the tag, as JSON, for completions under a policy with this taxonomy."""
    elements = [
        *(_token(tokens.channel), _text("analysis"), _token(tokens.message)),
        {
            "type": "any_tokens",
            "exclude_tokens": sorted(tokens.every),
            "max_tokens": budget.reasoning_tokens_max,
        },
        *(_token(tokens.end), _token(tokens.start), _text("assistant")),
        *(_token(tokens.channel), _text("final")),
        {
            "type": "optional",
            "content": _sequence([_text(" "), _token(tokens.constrain), _text("json")]),
        },
        _token(tokens.message),
        _answer(taxonomy),
        _text(',"rationale":"'),
        {
            "type": "any_text",
            "excludes": list(_RATIONALE_EXCLUDES),
            "max_tokens": budget.rationale_tokens_max,
        },
        _text('"}'),
    ]
    return json.dumps(
        {"type": "structural_tag", "format": _sequence(elements)}, separators=(",", ":")
    )


def completion_tokens_max(taxonomy: Taxonomy, budget: Budget) -> int:
    """Return a bound on a completion's tokens: both budgets, and one token for each byte of the fixed text."""
    return (
        budget.reasoning_tokens_max
        + budget.rationale_tokens_max
        + len(_longest(taxonomy).encode())
        + len(',"rationale":""}')
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
    return _json([max(taxonomy.rule_ids, key=_bytes)] * RULE_IDS_MAX)


def _answer(taxonomy: Taxonomy) -> dict[str, Any]:
    """Return the answer up to the rationale."""
    if taxonomy.label_kinds:
        return _labels(taxonomy)
    return _either([_head(pair, taxonomy) for pair in combinations(taxonomy)])


def _labels(taxonomy: Taxonomy) -> dict[str, Any]:
    """Return the answer up to the rationale, with one label of each kind, or none where an outcome has none."""
    elements: list[dict[str, Any]] = []
    for kind in taxonomy.label_kinds:
        labels = [_text(_json(f"{kind}-{category.code}")) for category in taxonomy.categories]
        elements += [_text(","), _either(labels)] if elements else [_either(labels)]
    some = _sequence([_text('{"labels":['), *elements, _text("]")])
    none = any(pair.category is None for pair in combinations(taxonomy))
    start = _either([some, _text(_labels_start([]))]) if none else some
    if not _rules_key(taxonomy):
        return start
    return _sequence([start, _text(_rules_key(taxonomy)), _rules(taxonomy.rule_ids)])


def _labels_start(labels: list[str]) -> str:
    return f'{{"labels":{_json(labels)}'


def _start(pair: Combination, taxonomy: Taxonomy) -> str:
    if len(taxonomy.outcomes) > OUTCOMES_OF_VIOLATION:
        start = f'{{"label":{_json(pair.outcome.word)}'
    else:
        start = f'{{"violation":{int(pair.outcome.decision == "violates")}'
    if taxonomy.categories:
        start += f',"policy_category":{_json(pair.category)}'
    return start + _rules_key(taxonomy)


def _rules_key(taxonomy: Taxonomy) -> str:
    return ',"rule_ids":' if taxonomy.categories and taxonomy.rule_ids else ""


def _head(pair: Combination, taxonomy: Taxonomy) -> dict[str, Any]:
    """Return the answer up to the rationale, for one outcome and category."""
    start = _text(_start(pair, taxonomy))
    return _sequence([start, _rules(pair.rule_ids)]) if _rules_key(taxonomy) else start


def _rules(rule_ids: Sequence[str]) -> dict[str, Any]:
    """Return a list of up to :data:`RULE_IDS_MAX` of these rule ids."""
    if not rule_ids:
        return _text("[]")
    one = _either([_text(_json(rule)) for rule in rule_ids])
    more = {
        "type": "repeat",
        "min": 0,
        "max": RULE_IDS_MAX - 1,
        "content": _sequence([_text(","), one]),
    }
    return _sequence(
        [_text("["), {"type": "optional", "content": _sequence([one, more])}, _text("]")]
    )


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _token(token: int) -> dict[str, Any]:
    return {"type": "token", "token": token}


def _text(text: str) -> dict[str, Any]:
    return {"type": "const_string", "value": text}


def _sequence(elements: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "sequence", "elements": list(elements)}


def _either(elements: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return elements[0] if len(elements) == 1 else {"type": "or", "elements": list(elements)}
