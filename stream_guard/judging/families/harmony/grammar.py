"""Writes the grammar for one policy's completions, as a structural tag for xgrammar. Pure.

The tag spells out the whole completion: the analysis channel with an exact token budget, then the final channel with
an answer that the policy allows. Two constructs are avoided. After an optional character before a character class,
xgrammar 0.2.8 unmasks tokens that it then rejects. A bounded JSON string takes seconds to compile against 200,000
tokens; the constructs used here take tens of milliseconds.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from stream_guard.judging.families.harmony.prompt import RULE_IDS_MAX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.judging.families.family import Budget
    from stream_guard.judging.families.harmony.tokens import ControlTokens
    from stream_guard.policies.taxonomy import Taxonomy

# xgrammar matches text: without "<|" here it would accept a marker, spelled out in letters.
_RATIONALE_EXCLUDES: Final = ('"', "\\", "\n", "\r", "\t", "<|")
_HEADERS: Final = "analysisassistantfinal json"
_HEADER_MARKERS: Final = 8
"""Channel, message, end, start, channel, constrain, message, return."""


class Combination(NamedTuple):
    """A label, and the category that it may come with; None is JSON's null."""

    violation: int
    category: str | None
    rule_ids: tuple[str, ...]


def combinations(taxonomy: Taxonomy) -> list[Combination]:
    """Return every pair of label and category that the policy allows, with the category's rule ids.

    A label without any category gets a pair with the category None.
    """
    pairs = [
        Combination(
            int(category.violates),
            category.code,
            tuple(rule for rule in taxonomy.rule_ids if rule.startswith(f"{category.code}.")),
        )
        for category in taxonomy.categories
    ]
    pairs.extend(
        Combination(violation, None, ())
        for violation in (0, 1)
        if all(p.violation != violation for p in pairs)
        # A wrong category is worse than none, so null stays possible where one may be missing.
        or (violation == 1 and not taxonomy.complete)
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
        _either([_head(pair, taxonomy) for pair in combinations(taxonomy)]),
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
    fixed = max(len(_longest_head(pair, taxonomy).encode()) for pair in combinations(taxonomy))
    return (
        budget.reasoning_tokens_max
        + budget.rationale_tokens_max
        + fixed
        + len(',"rationale":""}')
        + len(_HEADERS)
        + _HEADER_MARKERS
    )


def _longest_head(pair: Combination, taxonomy: Taxonomy) -> str:
    longest = sorted(pair.rule_ids, key=len)[-RULE_IDS_MAX:]
    longest = (longest[-1:] * RULE_IDS_MAX) if longest else []
    return _start(pair, taxonomy) + (json.dumps(longest) if taxonomy.rule_ids else "")


def _start(pair: Combination, taxonomy: Taxonomy) -> str:
    start = f'{{"violation":{pair.violation}'
    if taxonomy.categories:
        start += f',"category":{json.dumps(pair.category, ensure_ascii=False)}'
        if taxonomy.rule_ids:
            start += ',"rule_ids":'
    return start


def _head(pair: Combination, taxonomy: Taxonomy) -> dict[str, Any]:
    """Return the answer up to the rationale, for one label and category."""
    start = _text(_start(pair, taxonomy))
    if not (taxonomy.categories and taxonomy.rule_ids):
        return start
    if not pair.rule_ids:
        return _sequence([start, _text("[]")])
    one = _either([_text(json.dumps(rule, ensure_ascii=False)) for rule in pair.rule_ids])
    more = {
        "type": "repeat",
        "min": 0,
        "max": RULE_IDS_MAX - 1,
        "content": _sequence([_text(","), one]),
    }
    return _sequence(
        [start, _text("["), {"type": "optional", "content": _sequence([one, more])}, _text("]")]
    )


def _token(token: int) -> dict[str, Any]:
    return {"type": "token", "token": token}


def _text(text: str) -> dict[str, Any]:
    return {"type": "const_string", "value": text}


def _sequence(elements: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "sequence", "elements": list(elements)}


def _either(elements: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return elements[0] if len(elements) == 1 else {"type": "or", "elements": list(elements)}
