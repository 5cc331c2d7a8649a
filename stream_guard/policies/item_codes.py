"""Finds the codes that lists define by letters, ``A. Threats``, and the code for posts in no category. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from stream_guard.policies.label_words import is_label_word
from stream_guard.policies.labels import ANSWER_WORDS
from stream_guard.policies.word_codes import EXAMPLES, asks_letter, is_no_code

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stream_guard.policies.text import Section

__all__ = ["ItemCode", "bracket_items", "codes_for_none", "letter_items"]

_LETTER_ITEM: Final = re.compile(
    r"^\s{0,12}(?:[-*+\u2022]\s+)?[`*_(\[]{0,3}([A-Z])(?:[`*_]{0,2}[.):][`*_]{0,2}|[`*_]{0,2}\s+[-\u2013\u2014])\s+(\S.{0,300})$"
)
_BRACKET_ITEM: Final = re.compile(
    r"^\s{0,12}(?:[-*+\u2022]|\d{1,2}[.)])\s+([^()\[\]\n:]{2,60}?)\s*[(\[]([A-Z]{1,8}\d{0,3})[)\]][`*_]{0,2}\s*(?::|[-\u2013\u2014]\s)\s*(.{1,300})$"
)
_ITEM_CODE: Final = r"[`*\"']{0,2}([A-Z]{1,8}\d{1,3})[`*\"']{0,2}"
_NONE: Final = (
    r"(?:if|when|where|for)\s+(?:none|no\b|nothing|everything\s+else|anything\s+else|all\s+other)"
)
_CODE_FOR_NONE: Final = (
    re.compile(rf"\b{_ITEM_CODE}\s*,?\s+{_NONE}", re.IGNORECASE),
    re.compile(
        rf"\b{_NONE}[^.;\n]{{0,60}}?\b(?:return|output|answer|use|reply|respond)\W{{1,3}}(?:with\s)?{_ITEM_CODE}",
        re.IGNORECASE,
    ),
    re.compile(
        rf"\b(?:otherwise|else)\W{{1,3}}(?:(?:return|output|answer|use)\s)?{_ITEM_CODE}",
        re.IGNORECASE,
    ),
)
_TWO: Final = 2


class ItemCode(NamedTuple):
    """A code, the words beside it, and its line (from 1)."""

    code: str
    meaning: str
    line: int
    section: int


def letter_items(sections: Sequence[Section]) -> list[ItemCode]:
    """Return the items that letters from A on number, where the text asks for a letter; empty otherwise."""
    if not asks_letter(sections):
        return []
    found: list[ItemCode] = []
    for index, section in enumerate(sections):
        if any(map(EXAMPLES.search, (section.title, *section.parents))):
            continue
        for line in section.lines:
            match = None if line.in_code else _LETTER_ITEM.match(line.text)
            if match is not None and match[1] == chr(ord("A") + len(found)):
                found.append(ItemCode(match[1], match[2], line.number, index))
    return found if len(found) >= _TWO else []


def bracket_items(sections: Sequence[Section]) -> list[ItemCode]:
    """Return the items with a code in brackets after a name, ``- hate (H): ...``, where a list has several."""
    found: list[ItemCode] = []
    for index, section in enumerate(sections):
        if any(map(EXAMPLES.search, (section.title, *section.parents))):
            continue
        own = [
            ItemCode(match[2], f"{match[1].strip('`*_ ')}: {match[3]}", line.number, index)
            for line in section.lines
            if not line.in_code and (match := _BRACKET_ITEM.match(line.text)) is not None
            if not is_no_code(match[2]) and not is_label_word(match[2])
        ]
        if len({item.code for item in own}) >= _TWO:
            found.extend(own)
    return found


def codes_for_none(sections: Sequence[Section]) -> Iterator[ItemCode]:
    """Yield the code that the text asks for where no category applies: ``or W0 if none applies``."""
    for index, section in enumerate(sections):
        for line in section.lines:
            if line.in_code or ANSWER_WORDS.search(line.text) is None:
                continue
            for pattern in _CODE_FOR_NONE:
                if (match := pattern.search(line.text)) is not None and match[1].isupper():
                    yield ItemCode(match[1], "", line.number, index)
                    break
