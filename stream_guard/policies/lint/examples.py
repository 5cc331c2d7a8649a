"""Findings about examples: too few, or contradictory. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from stream_guard.core.english import count_of
from stream_guard.policies.label_words import label_stance
from stream_guard.policies.lint.findings import CODES
from stream_guard.policies.lint.words import FINDINGS_MAX
from stream_guard.policies.text import read_sections

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from stream_guard.policies.lint.findings import Finding
    from stream_guard.policies.policy import Policy
    from stream_guard.policies.taxonomy import Taxonomy
    from stream_guard.policies.text import Line, Section

__all__ = ["Example", "check_examples", "find_examples"]

_EXAMPLES_MIN: Final = 4
_QUOTED: Final = re.compile(
    r"\"([^\"\n]{2,500})\"|\u201c([^\u201d\n]{2,500})\u201d|「([^」\n]{2,500})」"
)
_TITLE: Final = re.compile(r"example|beispiel|exemple|ejemplo|esempi|例|пример", re.IGNORECASE)
_ARROW: Final = re.compile(r"^\s*(?:->|=>|\u2192|:|-|\u2013|\u2014|=)\s*(.{1,200})$")
_ITEM: Final = re.compile(r"^\s*(?:[-*+\u2022]|\d{1,3}[.)])\s+\S")
_WORD: Final = re.compile(r"[\w/.-]{1,80}")
_RULE_FIRST: Final = re.compile(r"^\s*[-*+]?\s*[`*]{0,3}([A-Z]{1,8}\d{1,3})\.[a-z0-9]{1,3}\b")


class Example(NamedTuple):
    """A quoted text (case-folded) with its answer; ``arrow`` means that the answer follows the text."""

    text: str
    line: int
    violates: bool
    code: str | None
    arrow: bool


def check_examples(policy: Policy, source: str) -> Iterator[Finding]:
    """Yield findings about examples."""
    sections = read_sections(policy.text)
    examples = list(find_examples(sections, policy.taxonomy))
    number = max(len({e.line for e in examples}), _listed(sections))
    if number < _EXAMPLES_MIN:
        detail = f"{count_of(number, 'example')}; four to six near the boundary work best"
        yield CODES["SG106"].at(source, detail=detail)
    yield from _contradictory(examples, source)


def _listed(sections: Iterable[Section]) -> int:
    """Return the number of items and quoted lines under headings about examples."""
    return sum(
        1
        for section in sections
        if _TITLE.search(section.title)
        for line in section.lines
        if _ITEM.match(line.text) or _QUOTED.search(line.text)
    )


def find_examples(sections: Iterable[Section], taxonomy: Taxonomy) -> Iterator[Example]:
    """Yield quoted texts with their answer: after an arrow, or from the rule of the line."""
    for section in sections:
        for line in section.lines:
            yield from _of_line(line, taxonomy)


def _of_line(line: Line, taxonomy: Taxonomy) -> Iterator[Example]:
    quotes = list(_QUOTED.finditer(line.text))
    if not quotes:
        return
    violates, code = None, None
    if arrow := _ARROW.match(line.text[quotes[-1].end() :]):
        violates, code = _answer(arrow[1], taxonomy)
    elif rule := _RULE_FIRST.match(line.text):
        violates, code = _answer(rule[1], taxonomy)
    for quote in quotes:
        text = next(group for group in quote.groups() if group)
        if violates is not None:
            folded = " ".join(text.casefold().split())
            yield Example(folded, line.number, violates, code, arrow is not None)


def _answer(words: str, taxonomy: Taxonomy) -> tuple[bool | None, str | None]:
    """Return whether an answer violates, and its category, by the first known word."""
    for match in _WORD.finditer(words):
        word = match[0].rstrip(".")
        category = taxonomy.category(word) or taxonomy.category(word.partition(".")[0])
        if category is not None:
            return category.violates, category.code
        if word in {taxonomy.violates_label, taxonomy.safe_label}:
            return word == taxonomy.violates_label, None
        if len(words.split()) == 1 and (leaning := label_stance(word)) is not None:
            return leaning, None
    return None, None


def _contradictory(examples: Iterable[Example], source: str) -> Iterator[Finding]:
    first: dict[str, Example] = {}
    found = 0
    for example in examples:
        other = first.setdefault(example.text, example)
        same = other.violates == example.violates and (
            other.code == example.code or None in {other.code, example.code}
        )
        if same or found == FINDINGS_MAX:
            continue
        found += 1
        detail = f"the example has a different answer in line {other.line}"
        yield CODES["SG112"].at(source, example.line, detail=detail)
