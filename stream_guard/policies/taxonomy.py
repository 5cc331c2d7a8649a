"""What a bare policy text says about its own labels: categories, rule ids, and which violate. Pure.

Published policies have no front matter. They name their categories in headings (``ARS1 -
Promotion``), their rules in lists (``ARS1.a Encouragement``) and the label of each section on a
line of its own (``Output: `INVALID```). What cannot be read falls back to violates / safe.

What it must never do: invent a category or a rule id that is only mentioned and nowhere defined.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from stream_guard.core.vocabulary import Severity
from stream_guard.policies.labels import (
    ANSWER_WORDS,
    LabelPair,
    find_label_pairs,
    label_stance,
    output_labels,
)
from stream_guard.policies.text import read_definitions, read_sections, split_lines, stance

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stream_guard.policies.text import Section

__all__ = [
    "Category",
    "Found",
    "Severity",
    "Taxonomy",
    "defined_rules",
    "infer_taxonomy",
    "named_ids",
]

# Look-arounds on Latin letters and digits, since beside Chinese there is no word boundary.
_RULE: Final = re.compile(
    r"(?<![A-Za-z0-9.])([A-Z]{1,8}\d{1,3})\.([a-z]{1,2}|\d{1,3})(?![A-Za-z0-9]|\.\d)"
)
_CODE: Final = re.compile(
    r"(?<![A-Za-z0-9.-])([A-Z]{1,8}\d{1,3})(?![A-Za-z0-9]|\.[a-z0-9]|-[A-Za-z0-9])"
)
_ITEM: Final = re.compile(r"^\s*(?:[#>|*+-]+\s*|\d{1,3}[.)]\s+){0,3}[`*_\"'(\[]{0,4}")
_WORD_CODE: Final = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[_/-][A-Za-z0-9]+)*")
_SERIES: Final = re.compile(r"[A-Z]+")
_CODE_SECTION: Final = re.compile(
    r"categor|taxonom|\bcodes?\b|\blabels?\b|kategori|catégor|categorí|カテゴリ|类别|分类|"
    r"категор",
    re.IGNORECASE,
)
_PARTS: Final = re.compile(r"[|;,.:()]")
_OUTRIGHT_WORDS_MAX: Final = 3
_TITLE_END: Final = re.compile(r"[)\]]\W*$")
_SEPARATOR: Final = re.compile(r"^[`*_\"'\s]*[-\u2013\u2014:.|]?\s*[`*_]*\s*")

What = Literal["violates_label", "safe_label", "category", "violates", "rule_id"]


@dataclass(slots=True, frozen=True)
class Category:
    """One category: its code, what the text calls it, and whether it violates.

    ``severity`` and ``action`` (recommended to enforcement) come from ``policy.yaml`` alone.
    """

    code: str
    title: str
    violates: bool
    severity: Severity | None = None
    action: str | None = None


@dataclass(slots=True, frozen=True)
class Found:
    """Where one thing was read.

    Attributes:
        what: the kind of thing; ``violates`` is a category's being violating or not.
        value: the thing itself; for ``violates``, the category's code.
        line: in the text, from 1; 0 where it is in no line, but a fallback.
        how: in a few words, for people.
        file: the line's file: ``policy.md`` or ``policy.yaml``.
    """

    what: What
    value: str
    line: int
    how: str
    file: str = "policy.md"


@dataclass(slots=True, frozen=True)
class Taxonomy:
    """What answers may name.

    Attributes:
        categories: in the text's order; empty where the text names none.
        rule_ids: in the text's order; each begins with its category's code and a dot.
        violates_label, safe_label: the words that the text itself uses.
        found: where each of these was found.
    """

    categories: tuple[Category, ...] = ()
    rule_ids: tuple[str, ...] = ()
    violates_label: str = "violates"
    safe_label: str = "safe"
    found: tuple[Found, ...] = field(default=(), compare=False)

    def category(self, code: str) -> Category | None:
        """Return the category of this code, or None where the policy has none such."""
        return next((c for c in self.categories if c.code == code), None)

    def where(self, what: What, value: str) -> Found | None:
        """Return where this was found, or None where it was not looked for."""
        return next((f for f in self.found if f.what == what and f.value == value), None)


_FALLBACK: Final = LabelPair("violates", "safe", 0, 0, "the fallback: the text states no labels")

# How sure each sign of a category's being violating or safe is; the first there is wins.
_SIGNS: Final = ("output line", "heading", "meaning", "enclosing heading", "number 0", "assumed")


class _Mention(NamedTuple):
    """A place that defines a category, and the sign there of its violating, if any."""

    code: str
    title: str
    line: int
    how: str
    sure: bool  # else it counts only where another code has the same letters: H1 and H2
    violates: bool | None
    sign: str
    sign_line: int


def infer_taxonomy(text: str) -> Taxonomy:
    """Read labels, categories and rule ids out of a text; falls back to violates / safe."""
    sections = read_sections(text)
    pairs = find_label_pairs(sections)
    pair = pairs[0] if pairs else _FALLBACK
    rules = _rules(sections)
    mentions = _believed([*_mentions(sections, pair), *_of_rules(sections, rules)])
    found = [
        Found("violates_label", pair.violates, pair.violates_line, pair.how),
        Found("safe_label", pair.safe, pair.safe_line, pair.how),
    ]
    categories = []
    by_code: dict[str, list[_Mention]] = {}
    for mention in mentions:
        by_code.setdefault(mention.code, []).append(mention)
    for code, own in by_code.items():
        violates, sign, sign_line = _leaning(own)
        categories.append(Category(code, next((m.title for m in own if m.title), code), violates))
        found.append(Found("category", code, own[0].line, own[0].how))
        found.append(Found("violates", code, sign_line, sign))
    found.extend(
        Found("rule_id", rule, line, "defined at the line's start") for rule, line in rules.items()
    )
    return Taxonomy(tuple(categories), tuple(rules), pair.violates, pair.safe, tuple(found))


def _leaning(mentions: Sequence[_Mention]) -> tuple[bool, str, int]:
    """Return whether a category violates, by the surest sign, with the sign and its line."""
    for sign in _SIGNS[:4]:
        for mention in mentions:
            if mention.sign == sign and mention.violates is not None:
                return mention.violates, sign, mention.sign_line
    code = mentions[0].code
    digits = code.lstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    if digits.isdigit() and int(digits) == 0:
        return False, "its number is 0, by custom the safe one", mentions[0].line
    return True, "assumed: the text does not say", 0


def _believed(mentions: Sequence[_Mention]) -> list[_Mention]:
    """Keep what is sure, and what forms a series with something else or itself was named sure."""
    series: dict[str, set[str]] = {}
    for mention in mentions:
        series.setdefault(_letters(mention.code), set()).add(mention.code)
    sure = {mention.code for mention in mentions if mention.sure}
    return [m for m in mentions if m.code in sure or len(series[_letters(m.code)]) > 1]


def _letters(code: str) -> str:
    match = _SERIES.match(code)
    return match[0] if match else code


def _rules(sections: Sequence[Section]) -> dict[str, int]:
    rules: dict[str, int] = {}
    for rule, line in defined_rules(sections):
        rules.setdefault(rule, line)
    return rules


def defined_rules(sections: Sequence[Section]) -> Iterator[tuple[str, int]]:
    """Yield the rule ids that begin a heading, a line, an item or a table's row, with the line."""
    for section in sections:
        if match := _RULE.match(section.title.lstrip("`*_(\"'[")):
            yield match[0], section.line
        for line in section.lines:
            if line.in_code:
                continue
            start = _ITEM.match(line.text)
            if match := _RULE.match(line.text, start.end() if start else 0):
                yield match[0], line.number


def named_ids(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield everything that looks like a category or a rule id, with its line and column."""
    for number, line in enumerate(split_lines(text), 1):
        for pattern in (_RULE, _CODE):
            for match in pattern.finditer(line):
                yield match[0], number, match.start() + 1


def _of_rules(sections: Sequence[Section], rules: dict[str, int]) -> Iterator[_Mention]:
    """Yield the category of each rule id, for texts that name categories nowhere else."""
    seen: set[str] = set()
    starts = [section.line for section in sections]
    for rule, line in rules.items():
        code = rule.partition(".")[0]
        if code in seen:
            continue
        seen.add(code)
        section = sections[bisect_right(starts, line) - 1]
        yield _Mention(
            code,
            section.title,
            line,
            how="prefix of a rule id",
            sure=True,
            violates=stance(section.title),
            sign="enclosing heading",
            sign_line=section.line,
        )


def _mentions(sections: Sequence[Section], pair: LabelPair) -> Iterator[_Mention]:
    for index, section in enumerate(sections):
        yield from _of_heading(sections, index, pair)
        yield from _of_definitions(section, pair)


def _of_heading(sections: Sequence[Section], index: int, pair: LabelPair) -> Iterator[_Mention]:
    """Yield the category that a heading names, with the label of the section's output line."""
    section = sections[index]
    match = _CODE.search(section.title)
    if match is None:
        return
    before, after = section.title[: match.start()], section.title[match.end() :]
    alone = not before.strip("`*_(\"'[ ")
    sure = before.rstrip("`*_\"' ").endswith(("(", "[", "-", "\u2013", "\u2014", ":")) or (
        alone
        and (not after.strip("`*_)\"'] ") or after.lstrip("`*_ ")[:1] in set("-\u2013\u2014:.|"))
    )
    if not sure and not alone:
        return
    title = _TITLE_END.sub("", _SEPARATOR.sub("", after, count=1)).strip("`*_ ")
    title = title or before.strip("`*_([-\u2013\u2014: ")
    violates, sign, line = stance(section.title), "heading", section.line
    labels = _labels_under(sections, index, pair)
    if len({label for label, _ in labels}) == 1:
        (violates, line), sign = labels[0], "output line"
    elif violates is None:
        violates, sign = _first_stance(section.parents), "enclosing heading"
    yield _Mention(match[1], title, section.line, "heading", sure, violates, sign, line)


def _labels_under(
    sections: Sequence[Section], index: int, pair: LabelPair
) -> list[tuple[bool, int]]:
    """Return the output lines under a heading and its sub-headings, as (violates, line)."""
    found: list[tuple[bool, int]] = []
    level = sections[index].level
    for section in sections[index:]:
        if section is not sections[index] and section.level <= level:
            break
        for word, line in output_labels(section.lines):
            leaning = {pair.violates: True, pair.safe: False}.get(word, label_stance(word))
            if leaning is not None:
                found.append((leaning, line))
    return found


def _of_definitions(section: Section, pair: LabelPair) -> Iterator[_Mention]:
    """Yield the categories that list items and table rows of a section define."""
    about_codes = any(_CODE_SECTION.search(title) for title in (section.title, *section.parents))
    about_answers = about_codes or ANSWER_WORDS.search(section.title) is not None
    for item in read_definitions(section.lines):
        if item.term in {pair.violates, pair.safe} or label_stance(item.term) is not None:
            continue
        series = _CODE.fullmatch(item.term)
        words = about_codes and _WORD_CODE.fullmatch(item.term) is not None
        if series is None and not (words and (item.marked or item.term.isupper())):
            continue
        if series is None and item.meaning.casefold().startswith(
            ("meaning", "definition", "description")
        ):
            continue  # a table's head
        title, violates, sign = item.meaning.split(" | ")[0], _meant(item.meaning), "meaning"
        if violates is None:
            violates, sign = (
                _first_stance((section.title, *reversed(section.parents))),
                "enclosing heading",
            )
        yield _Mention(
            item.term,
            title.strip("*_. "),
            item.line,
            "definition",
            about_answers or (item.marked and series is not None),
            violates,
            sign,
            item.line if sign == "meaning" else section.line,
        )


def _meant(meaning: str) -> bool | None:
    """Return what a meaning leans to; safe only where it says so outright.

    "Adverts; permitted once a week" is not; "Allowed discussion" and "News; allowed" are.
    """
    leaning = stance(meaning)
    if leaning is not False:
        return leaning
    parts = [part.split() for part in _PARTS.split(meaning)]
    outright = stance(" ".join(parts[0][:2])) is False or any(
        len(part) <= _OUTRIGHT_WORDS_MAX and stance(" ".join(part)) is False for part in parts
    )
    return False if outright else None


def _first_stance(titles: Sequence[str]) -> bool | None:
    return next((leaning for title in titles if (leaning := stance(title)) is not None), None)
