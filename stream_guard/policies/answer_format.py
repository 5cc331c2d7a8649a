"""Infers the answer format that a policy's text asks for, for policies that are used natively. Pure.

A native policy is the whole developer message, so the answer has the form that the text states: words, category codes,
one label of each kind, or JSON.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from stream_guard.policies.choices import code_runs
from stream_guard.policies.labels import ANSWER_WORDS
from stream_guard.policies.text import read_sections, split_lines
from stream_guard.policies.word_codes import EXAMPLES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stream_guard.policies.taxonomy import Taxonomy

__all__ = [
    "CATEGORY_KEYS",
    "CONFIDENCE_KEYS",
    "LABEL_KEYS",
    "RATIONALE_KEYS",
    "RULE_KEYS",
    "AnswerFormat",
    "FormatKind",
    "JsonKey",
    "infer_format",
    "make_format",
]

FormatKind: TypeAlias = Literal["words", "codes", "labels", "json"]
JsonValue: TypeAlias = Literal["digit", "boolean", "string", "number", "list"]
LABEL_KEYS: Final = (
    *("violation", "violates", "is_violation", "violating", "flagged", "unsafe"),
    *("label", "verdict", "decision", "result", "output", "answer", "classification"),
)
CATEGORY_KEYS: Final = ("policy_category", "category", "category_code", "code")
RULE_KEYS: Final = ("rule_ids", "rules")
CONFIDENCE_KEYS: Final = ("confidence",)
RATIONALE_KEYS: Final = ("rationale", "reason", "explanation", "reasoning")
_KNOWN_KEYS: Final = frozenset(
    (*LABEL_KEYS, *CATEGORY_KEYS, *RULE_KEYS, *CONFIDENCE_KEYS, *RATIONALE_KEYS)
)
_OBJECT: Final = re.compile(r"\{[^{}]{1,600}\}")
_PAIR: Final = re.compile(r"\"(\w{1,40})\"(\s{0,4}:\s{0,4})([^,}\n]{0,200})")
_BOOLEAN: Final = re.compile(r"\b(?:true|false)\b", re.IGNORECASE)
_ASKS_CODE: Final = re.compile(
    r"\b(?:answer|return|output|respond|reply|classif\w+|label|assign|antworte\w*|gib|réponds|responde)\b[^.\n]{0,60}?"
    r"\b(?:codes?\b|letters?\b|category name|name of the category|the category as|one of the categories|"
    r"kategorie|catégorie|categoría)",
    re.IGNORECASE,
)
_TWO: Final = 2
_JOINED: Final = r"(?<![\w-]){word}\s?[+&]\s?(?:ESCALATE|Escalate|escalate)(?![\w-])"


@dataclass(slots=True, frozen=True)
class JsonKey:
    """A key of a JSON answer, and the type of its value as the text shows it."""

    name: str
    value: JsonValue


@dataclass(slots=True, frozen=True)
class AnswerFormat:
    """How a native policy is answered.

    Attributes:
        kind: ``words``: one of ``choices``. ``codes``: likewise. ``labels``: one label of each kind, with a comma
            between. ``json``: an object with ``keys``.
        choices: the possible answers, of words and codes.
        keys: of a JSON answer, in order.
        spaced: whether the JSON has a space behind colons and commas.
        line: where the text states the format, from 1; 0 where it was declared.
        how: in a few words, for people.
    """

    kind: FormatKind
    choices: tuple[str, ...] = ()
    keys: tuple[JsonKey, ...] = ()
    spaced: bool = True
    line: int = 0
    how: str = ""


def infer_format(text: str, taxonomy: Taxonomy) -> AnswerFormat | str:
    """Return the format that a text asks for; or why it cannot be read, in words."""
    if taxonomy.label_kinds:
        kinds = ", ".join(f"{kind}-..." for kind in taxonomy.label_kinds)
        line = next(
            number
            for number, line in enumerate(split_lines(text), 1)
            if f"{taxonomy.label_kinds[0]}-" in line
        )
        return AnswerFormat("labels", line=line, how=f"labels of each kind: {kinds}")
    in_json = _json_format(text)
    if in_json is not None:
        return in_json
    asks = next(_asks_code(text, taxonomy), None)
    if asks is not None:
        made = make_format("codes", text, taxonomy)
        return made if isinstance(made, str) else _at(made, asks, "asks for a code")
    stated = taxonomy.where("violates_label", taxonomy.violates_label)
    if stated is None or (stated.line == 0 and stated.file == "policy.md"):
        return "the text states no output format"
    made = make_format("words", text, taxonomy)
    if isinstance(made, str) or stated.file != "policy.md":
        return made
    return _at(made, stated.line, stated.how)


def make_format(kind: FormatKind, text: str, taxonomy: Taxonomy) -> AnswerFormat | str:
    """Return a format of a declared kind, from what the taxonomy has; or why that is impossible, in words."""
    if kind == "json":
        return _json_format(text) or "the text shows no JSON answer with a label or a category"
    if kind == "labels":
        if not taxonomy.label_kinds:
            return "the text has no labels of several kinds, such as D-SP2, R-SP0"
        return AnswerFormat("labels", how="declared")
    words = tuple(outcome.word for outcome in taxonomy.outcomes)
    if kind == "words":
        joined = (
            match[0]
            for outcome in taxonomy.outcomes[:1]
            for match in re.finditer(_JOINED.format(word=re.escape(outcome.word)), text)
        )
        return AnswerFormat("words", tuple(dict.fromkeys((*words, *joined))), how="declared")
    return _code_format(words, text, taxonomy)


def _code_format(words: tuple[str, ...], text: str, taxonomy: Taxonomy) -> AnswerFormat | str:
    """Return the format of answers that are codes, and labels where a post is in none of the categories."""
    if not taxonomy.categories:
        return "the text has no categories"
    used = {taxonomy.outcome_of(category).word for category in taxonomy.categories}
    rest = [word for word in words if word not in used]
    if not taxonomy.complete:
        rest.append(taxonomy.violates_label)
    missing = [word for word in rest if word not in text]
    if missing:
        return f"no code and no label of the text says {missing[0]!r}"
    codes = (category.code for category in taxonomy.categories)
    return AnswerFormat("codes", tuple(dict.fromkeys((*codes, *rest))), how="declared")


def _at(made: AnswerFormat, line: int, how: str) -> AnswerFormat:
    return AnswerFormat(made.kind, made.choices, made.keys, made.spaced, line, how)


def _asks_code(text: str, taxonomy: Taxonomy) -> Iterator[int]:
    """Yield each line that asks for the code of a category, and not for both labels."""
    pair = (taxonomy.violates_label, taxonomy.safe_label)
    codes = {category.code for category in taxonomy.categories}
    for number, line in enumerate(split_lines(text), 1):
        if not codes or all(word in line for word in pair):
            continue
        listed = ANSWER_WORDS.search(line) is not None and any(
            len(codes & set(run)) >= _TWO for run in code_runs(line)
        )
        if listed or _ASKS_CODE.search(line):
            yield number


def _json_format(text: str) -> AnswerFormat | str | None:
    """Return the format of the first JSON answer of the text outside its examples, else within them.

    Where the text shows JSON with other keys alone, return why it cannot be read; where it shows none, None.
    """
    unknown: dict[str, int] = {}
    starts = _line_starts(text)
    shown = {
        line.number for s in read_sections(text) if EXAMPLES.search(s.title) for line in s.lines
    }
    found = [
        (starts_at in shown, starts_at, pairs)
        for match in _OBJECT.finditer(text)
        if (pairs := _PAIR.findall(match[0]))
        for starts_at in (_line_of(match.start(), starts),)
    ]
    for _, line, pairs in sorted(found, key=lambda each: each[:2]):
        names = [name for name, _, _ in pairs]
        if not set(names) <= _KNOWN_KEYS or len(set(names)) < len(names):
            unknown |= {
                name: line for name in names if name not in _KNOWN_KEYS and name not in unknown
            }
            continue
        if set(names).isdisjoint((*LABEL_KEYS, *CATEGORY_KEYS)):
            continue
        keys = tuple(JsonKey(name, _value_type(name, value)) for name, _, value in pairs)
        spaced = any(separator.endswith(" ") for _, separator, _ in pairs)
        return AnswerFormat("json", (), keys, spaced, line, "JSON in the text")
    if unknown:
        name, line = next(iter(unknown.items()))
        return f"the JSON in line {line} has the key {name!r}, which is not known"
    return None


def _value_type(name: str, value: str) -> JsonValue:
    """Return the type of a key's value, as the text shows it."""
    value = value.strip()
    if name in RULE_KEYS:
        return "list"
    if name in LABEL_KEYS:
        if _BOOLEAN.match(value):
            return "boolean"
        return "digit" if value[:1] in {"0", "1", "<"} else "string"
    if name in CONFIDENCE_KEYS:
        return "string" if value.startswith('"') else "number"
    return "string"


def _line_starts(text: str) -> Sequence[int]:
    starts = [0]
    starts.extend(match.end() for match in re.finditer(r"\r\n|\n|\r", text))
    return starts


def _line_of(position: int, starts: Sequence[int]) -> int:
    """Return the line, from 1, of a position in the text."""
    return bisect_right(starts, position)
