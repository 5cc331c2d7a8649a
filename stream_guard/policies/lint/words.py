"""Findings about size, sections and words of the text. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from stream_guard.policies.lint.findings import CODES
from stream_guard.policies.text import read_sections, stance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stream_guard.policies.lint.findings import Finding
    from stream_guard.policies.policy import Policy
    from stream_guard.policies.text import Line, Section

__all__ = ["FINDINGS_MAX", "TOKENS_MAX", "check_words", "estimate_tokens"]

TOKENS_MAX: Final = 10_000
_TOKENS_BEST: Final = (400, 600)
FINDINGS_MAX: Final = 50
"""Of one code in one policy; more findings add nothing."""
_NAMES_MAX: Final = 5
_LINES_MAX: Final = 10

_PIECE: Final = re.compile(
    r"(?P<latin>[A-Za-z]+)|(?P<wide>[\u2e80-\u9fff\uac00-\ud7af\uff00-\uffef]+)|(?P<word>[^\W\d_]+)"
    r"|\d{1,3}|[^\w\s]+\n*|\n+|_"
)
# Letters for each token of the o200k vocabulary: a low estimate.
_LETTERS_PER_TOKEN: Final = {"latin": 9, "word": 4, "wide": 1}

_DEFINITIONS: Final = re.compile(
    r"\bdefin|\bterms\b|\bglossar|\bmeans?\b|\bbegriff|d\u00e9finition|defini|\btermini\b|"
    r"定義|定义|术语|определен",
    re.IGNORECASE,
)
_PRECEDENCE: Final = re.compile(
    r"precedence|priorit|escalat|ambigu|in doubt|when unsure|if unsure|two categories|"
    r"several categories|both apply|choose the|wins\b|vorrang|zweifel|doute|"
    r"duda|優先|优先|приоритет|сомнен",
    re.IGNORECASE,
)
_HEDGES: Final = re.compile(
    r"\b(generally|usually|typically|often|sometimes|mostly|normally|probably|possibly|maybe|"
    r"perhaps|in most cases|as appropriate|if appropriate|where appropriate|and so on|etc|"
    r"in der regel|normalerweise|meistens|eventuell|g\u00e9n\u00e9ralement|parfois|normalmente|"
    r"generalmente|a veces)\b",
    re.IGNORECASE,
)
_QUOTES: Final = re.compile(
    r"\"[^\"\n]*\"|\u201c[^\u201d\n]*\u201d|\u00ab[^\u00bb\n]*\u00bb|`[^`\n]*`"
)
_CONTROL: Final = re.compile(r"<\|[A-Za-z0-9_]{1,40}\|>")
_EFFORT: Final = re.compile(
    r"\breasoning(?:[\s_-]effort)?\s{0,4}[:=]\s{0,4}(?:low|medium|high)\b", re.IGNORECASE
)
# Arabic and its presentation forms, Syriac, Thaana, N'Ko, the scripts of India, Sinhala, Myanmar, Khmer, Mongolian.
_JOINING: Final = "\u0600-\u08ff\u0900-\u0dff\u1000-\u109f\u1780-\u18af\ufb50-\ufdff\ufe70-\ufefc"
_EMOJI: Final = "\u2190-\u2bff\ufe0f\U0001f000-\U0001faff"
# After one of these signs a joiner may end a word, as in Malayalam's chillus.
_VIRAMAS: Final = "\u094d\u09cd\u0a4d\u0acd\u0b4d\u0bcd\u0c4d\u0ccd\u0d4d\u0dca\u1039\u17d2"
# Zero-width and direction marks. Between letters of scripts that need them, and between emoji, the joiners U+200C and
# U+200D are part of the spelling.
_INVISIBLE: Final = re.compile(
    rf"(?<![{_JOINING}])\u200c|(?<![{_VIRAMAS}])\u200c(?![{_JOINING}])"
    rf"|(?<![{_JOINING}{_EMOJI}])\u200d|(?<![{_VIRAMAS}])\u200d(?![{_JOINING}{_EMOJI}])"
    r"|[\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff\u00ad]"
)


def estimate_tokens(text: str) -> int:
    """Return an estimate of gpt-oss tokens of a text; within a quarter for policies."""
    tokens = 0
    for match in _PIECE.finditer(text):
        letters = _LETTERS_PER_TOKEN.get(match.lastgroup or "")
        tokens += -(-len(match[0]) // letters) if letters else 1
    return tokens


def check_words(
    policy: Policy, source: str, count_tokens: Callable[[str], int]
) -> Iterator[Finding]:
    """Yield findings about size, sections and words."""
    sections = read_sections(policy.text)
    yield from _size(policy, source, count_tokens)
    yield from _sections(policy, source, sections)
    lines = [line for section in sections for line in section.lines]
    headings = {section.line: section.title for section in sections if section.line}
    for pattern, code in ((_CONTROL, "SG113"), (_EFFORT, "SG115"), (_INVISIBLE, "SG118")):
        yield from _matches(policy.text, source, pattern, code)
    yield from _hedges(lines, source, headings)


def _size(policy: Policy, source: str, count_tokens: Callable[[str], int]) -> Iterator[Finding]:
    about = "about " if count_tokens is estimate_tokens else ""
    tokens = count_tokens(policy.text)
    if tokens > TOKENS_MAX:
        yield CODES["SG101"].at(source, detail=f"{about}{tokens:,} tokens, over {TOKENS_MAX:,}")
    elif not _TOKENS_BEST[0] <= tokens <= _TOKENS_BEST[1]:
        least, most = _TOKENS_BEST
        detail = f"{about}{tokens:,} tokens; {least} to {most} work best"
        yield CODES["SG102"].at(source, detail=detail)


def _sections(policy: Policy, source: str, sections: tuple[Section, ...]) -> Iterator[Finding]:
    titles = [section.title for section in sections]
    prose = [line.text for section in sections for line in section.lines if not line.in_code]
    if not any(_DEFINITIONS.search(words) for words in (*titles, *prose)):
        yield CODES["SG103"].at(source)
    categories = policy.taxonomy.categories
    leanings = {stance(words) for words in (*titles, *prose)}
    if True not in leanings and not any(category.violates for category in categories):
        yield CODES["SG104"].at(source)
    if False not in leanings and all(category.violates for category in categories):
        yield CODES["SG105"].at(source)
    if not any(_PRECEDENCE.search(words) for words in (*titles, *prose)):
        yield CODES["SG120"].at(source)


def _matches(text: str, source: str, pattern: re.Pattern[str], code: str) -> Iterator[Finding]:
    places = []
    for match in pattern.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        column = match.start() - text.rfind("\n", 0, match.start())
        name = match[0] if match[0].isprintable() else f"U+{ord(match[0][0]):04X}"
        places.append((line, column, name))
        if len(places) > FINDINGS_MAX:
            break
    yield from _together(places, source, code)


def _hedges(lines: list[Line], source: str, headings: dict[int, str]) -> Iterator[Finding]:
    """Yield hedging words outside quotes and code, which contain words of posts."""
    places = []
    for line in lines:
        if line.in_code or line.number in headings:
            continue
        bare = _QUOTES.sub(lambda quote: " " * len(quote[0]), line.text)
        places += [
            (line.number, match.start() + 1, match[0].casefold())
            for match in _HEDGES.finditer(bare)
        ]
        if len(places) > FINDINGS_MAX:
            break
    yield from _together(places[: FINDINGS_MAX + 1], source, "SG111")


def _together(places: list[tuple[int, int, str]], source: str, code: str) -> Iterator[Finding]:
    """Yield one finding at the first place, which names the other places.

    Args:
        places: line, column and what is there, in order; one more than ``FINDINGS_MAX`` stands for many.
        source: the file's name.
        code: of the finding.
    """
    if not places:
        return
    line, column, _ = places[0]
    names = ", ".join(list(dict.fromkeys(name for _, _, name in places))[:_NAMES_MAX])
    also = list(dict.fromkeys(str(number) for number, _, _ in places if number != line))
    shown = ", ".join(also[:_LINES_MAX])
    more = " and more" if len(also) > _LINES_MAX else ""
    where = f" (also in line{'s' if len(also) > 1 else ''} {shown}{more})" if also else ""
    detail = f"{CODES[code].summary}: {names}{where}"
    yield CODES[code].at(source, line, column, detail=detail)
