"""A policy's Markdown as numbered lines under headings, and what its words lean to. Pure.

Authors write headings in several ways (``## Allowed``, a bold line, a line of capitals); all count.
What it must never do: take time that grows faster than the text, since a policy may be hostile.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Definition", "Line", "Section", "read_definitions", "read_sections", "stance"]

_ATX: Final = re.compile(r"^ {0,3}(#{1,6})\s+(.*?)\s*#*\s*$")
_BOLD: Final = re.compile(r"^(?:\*\*|__)([^*_].{0,118}?)(?:\*\*|__):?\s*$")
_CAPITALS: Final = re.compile(r"^[A-Z][A-Z0-9 ,/&()'-]{2,60}:?\s*$")
_UNDERLINE: Final = re.compile(r"^(=+|-{3,})\s*$")
_FENCE: Final = re.compile(r"^ {0,3}(```|~~~)")
_BULLET: Final = re.compile(r"^\s*(?:(?:[-*+\u2022]|\d{1,3}[.)])\s+)?")
_MARKS: Final = "`*_\"' \u201c\u201d\u00ab\u00bb"
# The term of a definition: quoted or bold, or one bare word, before a separator.
_TERM: Final = re.compile(
    r"^(?P<open>[`*_\"'\u201c\u00ab]{0,4})(?P<term>[^\s`*\"'\u201d\u00bb:=|]{1,40})"
    r"(?P<close>[`*_\"'\u201d\u00bb]{0,4})\s*(?::|=|->|=>|\u2192|\uff1a|[-\u2013\u2014](?=\s))\**\s*(?P<meaning>\S.*)$"
)
_SETEXT_LEVELS: Final = {"=": 1, "-": 2}
_PSEUDO_LEVEL: Final = 7  # bold lines and capitals: below every real heading


@dataclass(slots=True, frozen=True)
class Line:
    """One line: its number (from 1), its text without the line end, and whether it is fenced."""

    number: int
    text: str
    in_code: bool = False


@dataclass(slots=True, frozen=True)
class Section:
    """A heading and what stands under it up to the next heading.

    Attributes:
        level: 1 to 6 as in Markdown, 7 for a bold line or a line of capitals, 0 before any heading.
        title: the heading's words.
        line: the heading's number; 0 before any heading.
        lines: what follows it, without the heading itself.
        parents: titles of the enclosing sections, outermost first.
    """

    level: int
    title: str
    line: int
    lines: tuple[Line, ...]
    parents: tuple[str, ...] = ()


@dataclass(slots=True, frozen=True)
class Definition:
    """A term and its meaning: a list item ``- TERM: meaning`` or a table's row.

    ``marked`` says that the term stood in back-ticks, quotes, bold, or a table's first cell.
    """

    term: str
    meaning: str
    line: int
    marked: bool


def _heading(current: str, following: str, before: str) -> tuple[int, str] | None:
    """Return the heading's level and title, or None where the line is not a heading."""
    if match := _ATX.match(current):
        return len(match[1]), match[2].strip("* ")
    stripped = current.strip()
    if not stripped or "|" in stripped:
        return None
    if (under := _UNDERLINE.match(following)) and stripped[0] not in "-*+>#":
        return _SETEXT_LEVELS[under[1][0]], stripped
    if match := _BOLD.match(stripped):
        return _PSEUDO_LEVEL, match[1].strip(":* ")
    if not before.strip() and _CAPITALS.match(stripped):
        return _PSEUDO_LEVEL, stripped.rstrip(": ")
    return None


def read_sections(text: str) -> tuple[Section, ...]:
    """Split a text at its headings; the first section has level 0 and no title."""
    lines = text.splitlines()
    sections: list[Section] = []
    trail: list[tuple[int, str]] = []  # the open headings, outermost first
    body: list[Line] = []
    level, title, line = 0, "", 0
    in_code = False

    def close() -> None:
        parents = tuple(name for depth, name in trail if depth < level)
        sections.append(Section(level, title, line, tuple(body), parents))

    for index, current in enumerate(lines):
        before = lines[index - 1] if index else ""
        following = lines[index + 1] if index + 1 < len(lines) else ""
        fence = _FENCE.match(current) is not None
        heading = None if in_code or fence else _heading(current, following, before)
        if heading is None:
            body.append(Line(index + 1, current, in_code or fence))
            in_code ^= fence
            continue
        close()
        level, title, line, body = *heading, index + 1, []
        trail = [*((depth, name) for depth, name in trail if depth < level), heading]
    close()
    return tuple(sections)


def _cells(text: str) -> list[str]:
    return [cell.strip() for cell in text.strip().strip("|").split("|")]


def read_definitions(lines: Iterable[Line]) -> tuple[Definition, ...]:
    """Return what list items, table rows and bare lines define, in order."""
    found: list[Definition] = []
    for line in lines:
        if line.in_code:
            continue
        if line.text.lstrip().startswith("|"):
            term, *rest = _cells(line.text)
            if rest and term.strip(_MARKS) and set(term) - set(":- "):
                found.append(
                    Definition(term.strip(_MARKS), " | ".join(rest), line.number, marked=True)
                )
            continue
        if match := _TERM.match(_BULLET.sub("", line.text, count=1)):
            marked = bool(match["open"] and match["close"])
            found.append(Definition(match["term"], match["meaning"].strip(), line.number, marked))
    return tuple(found)


# Several languages, since translated policies are common. Whole words; negations are read first.
_NOT_VIOLATING: Final = (
    r"(?:not|no|non|never|doesn't|does not|do not|don't|without)[\s_-]+(?:an?\s+|any\s+|in\s+)?"
    r"(?:violat\w*|harmful|prohibited|disallowed|unsafe)|kein(?:e|en)?\s+versto\u00df|pas\s+d.infraction|"
    r"no\s+infringe|\u9055\u53cd(?:\u3057\u306a\u3044|\u306a\u3057|\u3067\u306f\u306a\u3044)|\u4e0d\u8fdd\u89c4|"
    r"\u043d\u0435 \u043d\u0430\u0440\u0443\u0448\u0430\u0435\u0442"
)
_NOT_SAFE: Final = (
    r"(?:not|never|isn't|is not)[\s_-]+(?:be\s+)?(?:allowed|permitted|safe|acceptable|ok|okay|valid)|"
    r"nicht\s+erlaubt|nicht\s+zul\u00e4ssig|non\s+autoris\u00e9\w*|no\s+permitid\w*|\u7981\u6b62|\u4e0d\u5141\u8bb8"
)
_VIOLATING: Final = (
    r"violat\w*|disallowed|prohibited|forbidden|banned|invalid|unsafe|harmful|infring\w*|must be removed|"
    r"versto\u00df\w*|verst\u00f6\u00dft|verboten\w*|unzul\u00e4ssig\w*|infraction\w*|interdit\w*|enfreint|"
    r"infracci\u00f3n\w*|infringe|prohibid\w*|\u9055\u53cd|\u8fdd\u89c4|\u043d\u0430\u0440\u0443\u0448\w*|"
    r"\u0437\u0430\u043f\u0440\u0435\u0449\w*|viola|proibid\w*"
)
_SAFE: Final = (
    r"allowed|safe|permitted|permissible|acceptable|valid|benign|compliant|innocuous|harmless|okay|ok|"
    r"erlaubt\w*|zul\u00e4ssig\w*|unbedenklich\w*|autoris\u00e9\w*|permis\w{0,2}|permitid\w*|permesso|segur[oa]s?|"
    r"\u5b89\u5168|\u8a31\u53ef|\u5141\u8bb8|\u8a31\u5bb9|\u0440\u0430\u0437\u0440\u0435\u0448\w*|"
    r"\u0434\u043e\u043f\u0443\u0441\u0442\u0438\u043c\w*|permitid[oa]s?"
)
_LEANING: Final = re.compile(
    # Scripts without spaces have no word boundary, hence the look-around on Latin letters only.
    rf"(?<![a-z0-9])(?:(?P<not_violating>{_NOT_VIOLATING})|(?P<not_safe>{_NOT_SAFE})"
    rf"|(?P<violating>{_VIOLATING})|(?P<safe>{_SAFE}))(?![a-z0-9])",
    re.IGNORECASE,
)


def stance(words: str, *, first: bool = False) -> bool | None:
    """Return True where the words speak of violating, False of being safe, None of neither or both.

    With ``first``, the earliest mention settles it.
    """
    leanings = [match.lastgroup in {"violating", "not_safe"} for match in _LEANING.finditer(words)]
    if not leanings or (not first and len(set(leanings)) > 1):
        return None
    return leanings[0]
