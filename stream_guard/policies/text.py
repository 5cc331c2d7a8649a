"""Reads a policy's Markdown: numbered lines under headings, definitions, and the stance of words. Pure.

Headings are ``## Allowed``, a bold line, or a line of capitals. The time is linear in the text, because a
policy may be hostile.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from stream_guard.core.errors import PolicyError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "Definition",
    "Line",
    "Section",
    "decode_utf8",
    "read_definitions",
    "read_sections",
    "split_lines",
    "stance",
]

_ATX: Final = re.compile(r"^ {0,3}(#{1,6})\s+(.*?)\s*#*\s*$")
_BOLD: Final = re.compile(r"^(?:\*\*|__)([^*_].{0,118}?)(?:\*\*|__):?\s*$")
_CAPITALS: Final = re.compile(r"^[A-Z][A-Z0-9 ,/&()'-]{2,60}:?\s*$")
_UNDERLINE: Final = re.compile(r"^(=+|-{3,})\s*$")
_FENCE: Final = re.compile(r"^ {0,3}(```|~~~)")
EMOJI: Final = r"[\u2600-\u27bf\u2b00-\u2bff\U0001f000-\U0001faff\ufe0f\u200d\s]"
"""A class of characters that authors put before a code for decoration."""
_BULLET: Final = re.compile(rf"^\s*(?:(?:[-*+\u2022]|\d{{1,3}}[.)])\s+)?{EMOJI}{{0,6}}")
_MARKS: Final = "`*_\"' “”«»"
# The term of a definition: quoted or bold, or one bare word, before a separator.
_TERM: Final = re.compile(
    r"^(?P<open>[`*_\"'“«]{0,4})(?P<term>[^\s`*\"'”»:=|]{1,40})"
    r"(?P<close>[`*_\"'”»]{0,4})\s*"
    r"(?::|=|->|=>|→|\uff1a|[-\u2013\u2014](?=\s))\**\s*(?P<meaning>\S.*)$"
)
_MARKED_CODE: Final = re.compile(
    r"^(?:\*\*|`)(?P<term>[A-Z]{1,8}\d{1,3})(?:\*\*|`)\s+(?P<meaning>[^\W\d_].*)$"
)
_LINE_END: Final = re.compile(r"\r\n|\n|\r")
_HEADING_CHARACTERS_MAX: Final = 300  # keeps the patterns below, which may backtrack, cheap
_SETEXT_LEVELS: Final = {"=": 1, "-": 2}
_PSEUDO_LEVEL: Final = 7  # bold lines and capitals: below every real heading
_TABLE_RULE: Final = re.compile(r"^\s*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*$")
_YAML_LINE: Final = re.compile(r"^(?:\s*(?:#.*)?|\s*-\s.*|\s+\S.*|[\w.-]{1,60}\s*:(?:\s.*)?)$")
_FRONT_MATTER_LINES_MAX: Final = 200


@dataclass(slots=True, frozen=True)
class Line:
    """One line: number (from 1), text without line end, and whether it is code or YAML front matter."""

    number: int
    text: str
    in_code: bool = False


@dataclass(slots=True, frozen=True)
class Section:
    """A heading and its lines up to the next heading.

    Attributes:
        level: 1 to 6 as in Markdown, 7 for a bold line or a line of capitals, 0 before any heading.
        title: the heading's words.
        line: line number of the heading; 0 before any heading.
        lines: the lines after the heading.
        parents: titles of the enclosing sections, outermost first.
    """

    level: int
    title: str
    line: int
    lines: tuple[Line, ...]
    parents: tuple[str, ...] = ()


@dataclass(slots=True, frozen=True)
class Definition:
    """A term and its meaning: a list item ``- TERM: meaning`` or a row of a table.

    Attributes:
        term: without marks.
        meaning: the rest of the item, or the other cells with bars between.
        line: from 1.
        marked: the term is in back-ticks, quotes, bold, or the first cell of a table.
        indent: white space before the item, in characters.
        header: cells of the table's header; empty for items, and for tables without a header.
    """

    term: str
    meaning: str
    line: int
    marked: bool
    indent: int = 0
    header: tuple[str, ...] = ()


def decode_utf8(content: bytes, source: str) -> str:
    """Decode the bytes of a file, without a byte order mark.

    Raises:
        PolicyError: not UTF-8; the message names the file (``source``) and the line.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        message = f"{source}:{line}: not UTF-8 (byte {error.start}); save the file as UTF-8"
        raise PolicyError(message) from error


def _heading(current: str, following: str, before: str) -> tuple[int, str] | None:
    """Return level and title of a heading, or None where the line is not a heading."""
    stripped = current.strip()
    if not stripped or len(current) > _HEADING_CHARACTERS_MAX:
        return None
    if match := _ATX.match(current):
        return len(match[1]), match[2].strip("* ")
    if "|" in stripped:
        return None
    if (under := _UNDERLINE.match(following)) and stripped[0] not in "-*+>#":
        return _SETEXT_LEVELS[under[1][0]], stripped
    if match := _BOLD.match(stripped):
        return _PSEUDO_LEVEL, match[1].strip(":* ")
    capitals = not before.strip() and _CAPITALS.match(stripped)
    return (_PSEUDO_LEVEL, stripped.rstrip(": ")) if capitals else None


def split_lines(text: str) -> list[str]:
    """Return the lines as editors count them; ``str.splitlines`` splits at more characters."""
    return _LINE_END.split(text)


def _front_matter(lines: list[str]) -> int:
    """Return the number of lines of YAML front matter, both markers included; 0 where there is none."""
    if lines[0].rstrip() != "---":
        return 0
    for index, line in enumerate(lines[1:_FRONT_MATTER_LINES_MAX], 1):
        if line.rstrip() in {"---", "..."}:
            return index + 1
        if _YAML_LINE.match(line[:_HEADING_CHARACTERS_MAX]) is None:
            break
    return 0


def read_sections(text: str) -> tuple[Section, ...]:
    """Split a text at its headings; the first section has level 0 and no title."""
    lines = split_lines(text)
    sections: list[Section] = []
    trail: list[tuple[int, str]] = []  # the open headings, outermost first
    body: list[Line] = []
    level, title, line = 0, "", 0
    in_code = False
    front_matter = _front_matter(lines)
    body.extend(
        Line(number, line, in_code=True) for number, line in enumerate(lines[:front_matter], 1)
    )

    def close() -> None:
        parents = tuple(name for depth, name in trail if depth < level)
        sections.append(Section(level, title, line, tuple(body), parents))

    for index, current in enumerate(lines):
        if index < front_matter:
            continue
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
    """Return the definitions in list items, table rows and bare lines, in order."""
    found: list[Definition] = []
    lines = tuple(lines)
    header: tuple[str, ...] = ()
    for index, line in enumerate(lines):
        stripped = line.text.lstrip()
        if line.in_code or not stripped.startswith("|"):
            header = ()
        if line.in_code:
            continue
        if stripped.startswith("|"):
            if index + 1 < len(lines) and _TABLE_RULE.match(lines[index + 1].text):
                header = tuple(_cells(line.text))
                continue
            term, *rest = _cells(line.text)
            term = term.strip(_MARKS)
            if rest and term and set(term) - set(":- "):
                meaning = " | ".join(rest)
                found.append(Definition(term, meaning, line.number, marked=True, header=header))
            continue
        words = _BULLET.sub("", line.text, count=1)
        indent, meaning = len(line.text) - len(stripped), ""
        if match := _TERM.match(words):
            marked, meaning = bool(match["open"] and match["close"]), match["meaning"].strip()
        elif match := _MARKED_CODE.match(words):
            marked, meaning = True, match["meaning"].strip()
        if match:
            found.append(Definition(match["term"], meaning, line.number, marked, indent))
    return tuple(found)


# Several languages, because translated policies are common. Whole words; negations first.
_NOT_VIOLATING: Final = (
    r"(?:not|no|non|never|doesn't|does not|do not|don't|without)[\s_-]+(?:an?\s+|any\s+|in\s+)?"
    r"(?:violat\w*|harmful|prohibited|disallowed|unsafe)|kein(?:e|en)?\s+verstoß|"
    r"pas\s+d.infraction|no\s+infringe|違反(?:しない|なし|ではない)|不违规|"
    r"не нарушает"
)
_NOT_SAFE: Final = (
    r"(?:not|never|isn't|is not)[\s_-]+(?:be\s+)?(?:allowed|permitted|safe|acceptable|ok|okay|"
    r"valid)|nicht\s+erlaubt|nicht\s+zulässig|non\s+autorisé\w*|no\s+permitid\w*|禁止|不允许"
)
_VIOLATING: Final = (
    r"violat\w*|disallow\w*|prohibited|forbidden|banned|invalid|unsafe|harmful|infring\w*|"
    r"must be removed|verstoß\w*|verstößt|verboten\w*|unzulässig\w*|infraction\w*|"
    r"interdit\w*|enfreint|infracción\w*|infringe|prohibid\w*|違反|违规|наруш\w*|"
    r"запрещ\w*|viola|proibid\w*"
)
_SAFE: Final = (
    r"allowed|safe|permitted|permissible|acceptable|valid|benign|compliant|innocuous|harmless|okay|"
    r"ok|erlaubt\w*|zulässig\w*|unbedenklich\w*|autorisé\w*|permis\w{0,2}|permitid\w*|permesso|"
    r"segur[oa]s?|安全|許可|允许|許容|разреш\w*|"
    r"допустим\w*|permitid[oa]s?"
)
_LEANING: Final = re.compile(
    # Scripts without spaces have no word boundary, so the look-around is for Latin letters only.
    rf"(?<![a-z0-9])(?:(?P<not_violating>{_NOT_VIOLATING})|(?P<not_safe>{_NOT_SAFE})"
    rf"|(?P<violating>{_VIOLATING})|(?P<safe>{_SAFE}))(?![a-z0-9])",
    re.IGNORECASE,
)


def stance(words: str, *, first: bool = False) -> bool | None:
    """Return True for words about violating, False for words about being safe, None for neither or both.

    With ``first``, the first such word decides.
    """
    leanings = [match.lastgroup in {"violating", "not_safe"} for match in _LEANING.finditer(words)]
    if not leanings or (not first and len(set(leanings)) > 1):
        return None
    return leanings[0]
