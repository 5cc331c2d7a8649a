"""Reads the answer from a completion's token ids, or says how it is malformed. Pure.

Reading is lenient: without a grammar, a model forgets markers, uses the wrong quotes, or wraps its JSON in words. No
tokens make it raise. Two contradicting answers are malformed. The reasoning is never read as an answer. Categories and
rule ids that the policy does not have are dropped.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from stream_guard.judging.contract import Answer
from stream_guard.judging.families.harmony.tokens import split_messages

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.core.vocabulary import Decision
    from stream_guard.judging.contract import ParseStatus
    from stream_guard.judging.families.harmony.tokens import ControlTokens, Message, Tokenizer
    from stream_guard.policies.taxonomy import Taxonomy

RATIONALE_CHARS_MAX: Final = 1_000
ANSWER_CHARS_MAX: Final = 20_000
"""A longer text in the final channel is not an answer."""
RULE_IDS_READ_MAX: Final = 32
BARE_WORDS_MAX: Final = 3
_VIOLATION_KEYS: Final = (
    "violation",
    "violates",
    "label",
    "verdict",
    "decision",
    "output",
    "result",
    "answer",
)
_CATEGORY_KEYS: Final = ("category", "policy_category", "category_code", "code")
_RULE_KEYS: Final = ("rule_ids", "rules", "rule_id", "rule")
_RATIONALE_KEYS: Final = ("rationale", "reason", "explanation")
_ONE_WORDS: Final = frozenset(
    {"1", "true", "yes", "violates", "violation", "violating", "invalid", "unsafe"}
)
_ZERO_WORDS: Final = frozenset({"0", "false", "no", "safe", "valid", "allowed"})
_NO_CATEGORY: Final = frozenset({"", "none", "null", "n/a"})
# Finds a field in a text that is not JSON. No nested repetition: linear in the text's length.
_WORD: Final = r"""["']?([A-Za-z0-9_.\-/]{1,64})(?![A-Za-z0-9_.\-/])"""
_FIELD: Final = r"""["']?\b(?:%s)\b["']?\s{0,8}[:=]\s{0,8}"""
_VIOLATION: Final = re.compile(_FIELD % "|".join(_VIOLATION_KEYS) + _WORD, re.IGNORECASE)
_LABELLED: Final = re.compile(_FIELD % "|".join(_VIOLATION_KEYS), re.IGNORECASE)
_CATEGORY: Final = re.compile(_FIELD % "|".join(_CATEGORY_KEYS) + _WORD, re.IGNORECASE)
_RULES: Final = re.compile(
    _FIELD % "|".join(_RULE_KEYS) + r"(\[[^\]]{0,500}\]?|" + _WORD + ")", re.IGNORECASE
)
_RATIONALE: Final = re.compile(
    _FIELD % "|".join(_RATIONALE_KEYS) + r"""(?:"([^"]*)"?|'((?:[^']|(?<=\w)'(?=\w))*)'?)""",
    re.IGNORECASE,
)
_RULE: Final = re.compile(r"[A-Za-z0-9_.\-]{1,64}")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\s]+")
_BARE: Final = re.compile(r"[A-Za-z0-9_]+(?:[./-][A-Za-z0-9_]+)*")
_BEFORE_VIOLATION: Final = re.compile(r"""["']violation["']\s*:\s*$""")


@dataclass(slots=True, frozen=True)
class HarmonyReading:
    """The result of reading.

    Attributes:
        answer: ``undetermined``, with the reason as its parse status, if none could be read.
        final: the message that the answer was read from, or None.
        reasoning_tokens: length of the analysis channel, in tokens.
    """

    answer: Answer
    final: Message | None = None
    reasoning_tokens: int = 0


@dataclass(slots=True)
class _Fields:
    """An answer's fields as found, before they are checked against the policy."""

    violation: bool | None = None
    category: str | None = None
    rule_ids: list[str] | None = None
    rationale: str | None = None
    exact: bool = False


def read_answer(
    ids: Sequence[int],
    taxonomy: Taxonomy,
    tokens: ControlTokens,
    tokenizer: Tokenizer,
    *,
    complete: bool,
) -> HarmonyReading:
    """Read the answer out of a completion.

    Args:
        ids: the completion's tokens, behind ``<|start|>assistant``.
        taxonomy: what the answer may name.
        tokens: the model's control tokens.
        tokenizer: of the model.
        complete: whether the model ended by itself. A cut answer is read only if its JSON is complete.
    """
    messages = split_messages(ids, tokens, tokenizer)
    final = _final_message(messages)
    reasoning = sum(len(message.ids) for message in messages if message.channel == "analysis")
    if final is None:
        return HarmonyReading(_undetermined("empty" if complete else "truncated"), None, reasoning)
    text = tokenizer.decode([token for token in final.ids if token not in tokens.every]).strip()
    if not text:
        return HarmonyReading(_undetermined("empty" if complete else "truncated"), None, reasoning)
    if len(text) > ANSWER_CHARS_MAX:
        return HarmonyReading(
            _undetermined("malformed" if complete else "truncated"), final, reasoning
        )
    fields = _read_json(text, taxonomy)
    if fields is None and complete:
        fields = _read_text(text, taxonomy)
    if fields is None:
        return HarmonyReading(
            _undetermined("malformed" if complete else "truncated"), final, reasoning
        )
    as_asked = final.channel == "final" and final.whole
    return HarmonyReading(
        _settle(fields, taxonomy, exact=fields.exact and complete and as_asked), final, reasoning
    )


def violation_position(
    reading: HarmonyReading, digits: tuple[int, int], tokenizer: Tokenizer
) -> int | None:
    """Return the position, in the completion, of the token that is the answer's 0 or 1; None if there is none.

    Args:
        reading: of this completion.
        digits: ids of the tokens "0" and "1".
        tokenizer: of the model.
    """
    final = reading.final
    if final is None:
        return None
    for offset, token in enumerate(final.ids):
        if token in digits and _BEFORE_VIOLATION.search(tokenizer.decode(final.ids[:offset])):
            return final.first + offset
    return None


def _undetermined(status: ParseStatus) -> Answer:
    return Answer("undetermined", parse_status=status)


def _final_message(messages: list[Message]) -> Message | None:
    """Return the last message of the final channel that holds something.

    Without any channel at all, the last message will do; reasoning never does.
    """
    finals = [
        message for message in messages if message.channel.startswith("final") and len(message.ids)
    ]
    if finals:
        return finals[-1]
    if any(message.channel.startswith("final") for message in messages):
        return None
    bare = [message for message in messages if not message.channel]
    return bare[-1] if bare and bare[-1] is messages[-1] else None


def _read_json(text: str, taxonomy: Taxonomy) -> _Fields | None:
    exact = _loads(text)
    document = exact if isinstance(exact, dict) else _loads(_embedded(text))
    if not isinstance(document, dict):
        return None
    rules = _first(document, _RULE_KEYS)
    fields = _Fields(
        violation=_truth(_first(document, _VIOLATION_KEYS), taxonomy),
        category=_category(_first(document, _CATEGORY_KEYS)),
        rule_ids=_rule_list(rules),
        rationale=_text(_first(document, _RATIONALE_KEYS)),
    )
    fields.exact = (
        document is exact
        and document.keys() <= {"violation", "category", "rule_ids", "rationale"}
        and (type(document.get("violation")) is int and isinstance(rules, list | None))
    )
    return fields


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


def _read_text(text: str, taxonomy: Taxonomy) -> _Fields | None:
    """Read fields, or a bare label or category code; None if there is none, or more than one."""
    violations = {_truth(word, taxonomy) for word in _VIOLATION.findall(text)} - {None}
    categories = {word.rstrip(".") for word in _CATEGORY.findall(text)}
    if len(violations) > 1 or len(categories) > 1:
        return None
    if violations or categories:
        rationale = _RATIONALE.search(text)
        return _Fields(
            violation=next(iter(violations), None),
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


def _read_bare(text: str, taxonomy: Taxonomy) -> _Fields | None:
    words = _BARE.findall(text)
    codes = {word.partition(".")[0] for word in words if taxonomy.category(word.partition(".")[0])}
    if len(codes) == 1:
        rules = [word for word in words if word in taxonomy.rule_ids]
        return _Fields(category=codes.pop(), rule_ids=rules)
    # Prose contains "no" and "safe" in passing, so a label counts only if it is nearly alone.
    if codes or not words or len(words) > BARE_WORDS_MAX:
        return None
    labels = {_truth(word, taxonomy) for word in words} - {None}
    return _Fields(violation=labels.pop()) if len(labels) == 1 else None


def _truth(value: object, taxonomy: Taxonomy) -> bool | None:
    """Return whether a label says that the post violates; None if it says neither."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, bool | int | float):
        return bool(value) if value in (0, 1) else None
    if not isinstance(value, str):
        return None
    word = value.strip().strip(".").casefold()
    # The policy's own words come first: "allowed" can be a policy's label for a violation.
    if word == taxonomy.violates_label.casefold():
        return True
    if word == taxonomy.safe_label.casefold():
        return False
    category = taxonomy.category(value.strip())
    if category is not None:
        return category.violates
    return True if word in _ONE_WORDS else False if word in _ZERO_WORDS else None


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


def _settle(fields: _Fields, taxonomy: Taxonomy, *, exact: bool) -> Answer:
    """Check the fields against the policy; ``undetermined`` if they contradict each other."""
    category, dropped = None, False
    if fields.category is not None:
        code, _, rule = fields.category.partition(".")
        category = taxonomy.category(fields.category) or taxonomy.category(code)
        if category is None:
            dropped = True
        elif rule and category.code == code:
            exact = False
            fields.rule_ids = [fields.category, *(fields.rule_ids or [])]
    violation = fields.violation
    if violation is None and category is not None:
        violation, exact = category.violates, False
    if violation is None or (category is not None and category.violates != violation):
        return _undetermined("malformed")
    rules = list(dict.fromkeys((fields.rule_ids or [])[:RULE_IDS_READ_MAX]))
    known = tuple(rule for rule in rules if rule in taxonomy.rule_ids)
    dropped = dropped or len(known) < len(rules)
    decision: Decision = "violates" if violation else "safe"
    answer = Answer(decision, category.code if category else None, known, fields.rationale)
    status: ParseStatus = "category_dropped" if dropped else "ok" if exact else "repaired"
    return replace(answer, parse_status=status)
