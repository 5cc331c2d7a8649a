"""Which two words a policy's text uses for "violates" and "safe", and where it says so. Pure.

What it must never do: guess from one half of a pair; a pair that is not stated is not inferred.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from stream_guard.policies.text import read_definitions, stance

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from stream_guard.policies.text import Line, Section

__all__ = ["ANSWER_WORDS", "LabelPair", "find_label_pairs", "label_stance", "output_labels"]

# Words that are labels by themselves, folded. One language a line.
_VIOLATES_WORDS: Final = frozenset(
    [
        "invalid",
        "violates",
        "violation",
        "violating",
        "violated",
        "violate",
        "1",
        "yes",
        "true",
        "unsafe",
        "disallowed",
        "block",
        "blocked",
        "remove",
        "reject",
        "rejected",
        "deny",
        "flag",
        "flagged",
        "harmful",
        "spam",
        "toxic",
        "bad",
        "verstoß",
        "verstösst",
        "verstößt",
        "infraction",
        "infracción",
        "infringe",
        "enfreint",
        "違反",
        "违规",
        "нарушение",
        "нарушает",
    ]
)
_SAFE_WORDS: Final = frozenset(
    [
        "valid",
        "safe",
        "0",
        "no",
        "false",
        "allowed",
        "allow",
        "ok",
        "okay",
        "none",
        "keep",
        "pass",
        "approve",
        "approved",
        "accept",
        "permitted",
        "harmless",
        "ham",
        "benign",
        "good",
        "clean",
        "compliant",
        "no_violation",
        "not_violating",
        "non-violating",
        "erlaubt",
        "zulässig",
        "sicher",
        "autorisé",
        "sûr",
        "permitido",
        "seguro",
        "安全",
        "許可",
        "норма",
        "допустимо",
        "безопасно",
    ]
)
ANSWER_WORDS: Final = re.compile(
    r"\b(?:classif\w+|return|output|answer|respond|response|reply|label\w*|verdict|decision|result|"
    r"emit|antwort\w*|ausgabe|gib|répon\w+|sortie|responde\w*|respuesta|salida|devuelve\w*|"
    r"rispond\w+)\b|出力|回答|判定|输出|ответ|вывод",
    re.IGNORECASE,
)
_OUTPUT: Final = re.compile(
    r"^\W{0,8}(?:output|label|verdict|answer|ausgabe|sortie|salida|出力|输出)[*_`\s]{0,4}[:\uff1a]"
    r"\W{0,8}([\w-]{1,40})\W{0,8}$",
    re.IGNORECASE,
)
_QUOTED: Final = re.compile(
    r"`([^`\s]{1,40})`|\"([^\"\s]{1,40})\"|“([^”\s]{1,40})”|«\s?([^»\s]{1,40})\s?»"
    r"|\*\*([^*\s]{1,40})\*\*|'([^'\s]{1,40})'|「([^」\s]{1,40})」"
)
_BARE: Final = re.compile(r"(?<![\w.-])([\w-]{1,40})(?![\w-])")
_JSON_KEY: Final = re.compile(
    r"\"(violation|violates|is_violation|violating|flagged|unsafe|label|verdict|decision|result|"
    r"answer)\"\s{0,8}:\s{0,8}([^,}\n]{1,80})",
    re.IGNORECASE,
)
_BOOLEAN_KEYS: Final = frozenset(
    {"violation", "violates", "is_violation", "violating", "flagged", "unsafe"}
)


@dataclass(slots=True, frozen=True)
class LabelPair:
    """The words for violating and safe, the line of each (from 1), and how they were found."""

    violates: str
    safe: str
    violates_line: int
    safe_line: int
    how: str


def label_stance(word: str) -> bool | None:
    """Return True where a label's own word says violating, False where safe, None where neither."""
    folded = word.casefold()
    if folded in _VIOLATES_WORDS:
        return True
    return False if folded in _SAFE_WORDS else None


def output_labels(lines: Iterable[Line]) -> Iterator[tuple[str, int]]:
    """Yield the label and line of each ``Output: LABEL`` that stands on a line of its own."""
    for line in lines:
        if match := _OUTPUT.match(line.text):
            yield match[1].strip("_"), line.number


class _Pairs:
    """Collects a pair per manner: the first word of each kind."""

    def __init__(self) -> None:
        self.pairs: list[LabelPair] = []

    def offer(self, words: Iterable[tuple[str, bool | None, int]], how: str) -> None:
        """Add a pair where the words (word, violates, line) hold one of each kind."""
        kinds: dict[bool, tuple[str, int]] = {}
        for word, leaning, line in words:
            if leaning is not None:
                kinds.setdefault(leaning, (word, line))
        if len(kinds) == 2:  # noqa: PLR2004 - one of each
            (violates, violates_line), (safe, safe_line) = kinds[True], kinds[False]
            self.pairs.append(LabelPair(violates, safe, violates_line, safe_line, how))


def _quoted(text: str) -> Iterator[tuple[str, bool | None]]:
    """Yield quoted words of a line, each with what it or the words after it lean to."""
    matches = list(_QUOTED.finditer(text))
    for index, match in enumerate(matches):
        word = next(group for group in match.groups() if group)
        end = matches[index + 1].start() if index + 1 < len(matches) else len(text)
        own = label_stance(word)
        yield word, own if own is not None else stance(text[match.end() : end], first=True)


def _json_pairs(text: str) -> Iterator[tuple[str, bool | None]]:
    for key, value in _JSON_KEY.findall(text):
        words = [w for w in _BARE.findall(value) if label_stance(w) is not None]
        if key.casefold() in _BOOLEAN_KEYS and words:
            # One value shows the type, and with it the other value.
            pair = ("true", "false") if words[0] in {"true", "false"} else ("1", "0")
            if words[0] in {"true", "false", "0", "1"}:
                yield from ((pair[0], True), (pair[1], False))
                continue
        yield from ((word, label_stance(word)) for word in words)


def find_label_pairs(sections: Iterable[Section]) -> tuple[LabelPair, ...]:
    """Return every statement of a pair, the most trustworthy manner first."""
    sections = tuple(sections)
    found = _Pairs()
    outputs: list[tuple[str, bool | None, int]] = []
    defined: list[tuple[str, bool | None, int]] = []
    for section in sections:
        for word, number in output_labels(section.lines):
            own = label_stance(word)
            outputs.append((word, own if own is not None else stance(section.title), number))
        for item in read_definitions(section.lines):
            if (own := label_stance(item.term)) is not None:
                leaning = stance(item.meaning, first=True)
                numeric = item.term in {"0", "1"}  # could be anything unless the meaning says so
                defined.append((item.term, leaning if numeric else own, item.line))
    found.offer(outputs, "output lines")
    for manner in ("json", "quoted", "bare"):
        for section in sections:
            about_answers = ANSWER_WORDS.search(section.title) is not None
            for line in section.lines:
                _offer_line(found, line, manner, about_answers=about_answers)
    found.offer(defined, "definitions")
    return tuple(found.pairs)


def _offer_line(found: _Pairs, line: Line, manner: str, *, about_answers: bool) -> None:
    text = line.text
    if manner == "json":
        found.offer(((w, v, line.number) for w, v in _json_pairs(text)), "JSON")
        return
    if not about_answers and ANSWER_WORDS.search(text) is None:
        return
    if manner == "quoted":
        found.offer(((w, v, line.number) for w, v in _quoted(text)), "quoted words")
        return
    # Unquoted words count only as written in capitals or as digits: "safe" is also plain English.
    words = [w for w in _BARE.findall(text) if w.isupper() or w in {"0", "1"}]
    found.offer(((w, label_stance(w), line.number) for w in words), "words in capitals")
