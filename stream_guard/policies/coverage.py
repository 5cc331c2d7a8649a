"""Finds the violating sections of a policy's text that yield no category. Pure.

If one exists, an answer may violate without a category: a wrong category is worse than none.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import TYPE_CHECKING, Final, NamedTuple

from stream_guard.policies.label_words import escalates, label_stance
from stream_guard.policies.labels import output_labels
from stream_guard.policies.text import read_definitions, stance
from stream_guard.policies.word_codes import EXAMPLES, candidates, is_exempt, is_structural

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stream_guard.policies.labels import LabelPair
    from stream_guard.policies.mentions import Mention
    from stream_guard.policies.text import Section

__all__ = ["Unread", "find_unread"]


_QUOTES: Final = frozenset("\"'\u201c\u00ab\u300c")
_ARROW: Final = re.compile(r"->|=>|\u2192")
_ITEMS: Final = frozenset({"definition", "code of an item", "code with its label"})
_FORM: Final = re.compile(
    r"^\s*(?:(?P<bullet>[-*+\u2022]\s)|(?P<number>\d{1,3}[.)]\s)|(?P<bold>\*\*[^*\n]{1,80}\*\*))"
)
_MARKS: Final = re.compile(r"^\s*(?:[-*+\u2022]\s+|\d{1,3}[.)]\s+)?")
_SHOWN_CHARACTERS_MAX: Final = 80


class Unread(NamedTuple):
    """A section or item that looks like a category and yields no code, with its line (from 1)."""

    title: str
    line: int


def find_unread(
    sections: Sequence[Section], mentions: Sequence[Mention], pair: LabelPair
) -> Iterator[Unread]:
    """Yield the sections, and the items beside categories, that look violating and yield no category."""
    starts = [section.line for section in sections]
    read_at = {bisect_right(starts, mention.line) - 1 for mention in mentions}
    headings = {
        bisect_right(starts, mention.line) - 1 for mention in mentions if mention.how == "heading"
    }
    # Where every category has an output line, a section without one is none.
    labelled = all(m.sign == "output line" for m in mentions if m.how == "heading")
    levels = set() if labelled else {(sections[i].level, sections[i].parents) for i in headings}
    possible = candidates(sections, pair)
    read = _read_indexes(sections, read_at, headings)
    for index, section in enumerate(sections):
        if section.level == 0 or index in read:
            yield from _unread_items(section, mentions)
            continue
        if any(EXAMPLES.search(title) for title in (section.title, *section.parents)):
            continue
        if _looks_violating(section, pair) or (
            not is_structural(section.title)
            and (
                index in possible
                or escalates(section.title)
                or (
                    (section.level, section.parents) in levels
                    and stance(section.title) is not False
                )
            )
        ):
            yield Unread(section.title, section.line)


def _read_indexes(sections: Sequence[Section], read_at: set[int], headings: set[int]) -> set[int]:
    """Return the sections of which themselves, a sub-section or a heading around them yield a category."""
    parents: list[int] = []
    trail: list[int] = []
    for index, section in enumerate(sections):
        while trail and sections[trail[-1]].level >= section.level:
            trail.pop()
        parents.append(trail[-1] if trail else -1)
        trail.append(index)
    read = set(read_at)
    for index in range(len(sections) - 1, -1, -1):
        if index in read and parents[index] >= 0:
            read.add(parents[index])
    below: set[int] = set()
    for index, parent in enumerate(parents):
        if parent in headings or parent in below:
            below.add(index)
    return read | below


def _looks_violating(section: Section, pair: LabelPair) -> bool:
    """Return whether the output line, the heading or the headings around it say violating."""
    for word, _, _ in output_labels(section.lines):
        leaning = pair.leaning(word)
        if leaning is not None:
            return leaning
    if is_structural(section.title):
        return False
    for title in (section.title, *reversed(section.parents)):
        if (leaning := stance(title)) is not None:
            return leaning
    return False


def _unread_items(section: Section, mentions: Sequence[Mention]) -> Iterator[Unread]:
    """Yield the items that stand beside items that define categories, have their form, and define none."""
    lines = {mention.line for mention in mentions if mention.how in _ITEMS}
    defining = [line for line in section.lines if line.number in lines and _form(line.text)]
    if not defining:
        return
    top = min(_indent(line.text) for line in defining)
    forms = {_form(line.text) for line in defining}
    known = {item.line: item.term for item in read_definitions(section.lines)}
    in_list = False
    for line in section.lines:
        form = _form(line.text)
        if line.text.strip() and not form and _indent(line.text) <= top and "bold" not in forms:
            in_list = False  # prose ends the list
        in_list |= line.number in lines
        if line.in_code or not in_list or form not in forms or line.number in lines:
            continue
        words = _MARKS.sub("", line.text)
        if _indent(line.text) != top or words[:1] in _QUOTES or _ARROW.search(words):
            continue  # a sub-item or an example
        name = words.partition(":")[0].strip("`*_ ")
        if label_stance(known.get(line.number, "")) is None and not (
            is_structural(name) or is_exempt(name)
        ):
            yield Unread(words[:_SHOWN_CHARACTERS_MAX], line.number)


def _form(text: str) -> str:
    """Return the form of an item: a bullet, a number, or words in bold without either; "" for prose."""
    match = _FORM.match(text)
    return "" if match is None else str(match.lastgroup)


def _indent(text: str) -> int:
    return len(text) - len(text.lstrip())
