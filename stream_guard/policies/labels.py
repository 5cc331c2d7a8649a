"""Finds the two answer words of a policy's text, for violating and for safe, with their lines. Pure.

A pair counts only if the text states both words.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from stream_guard.policies.label_words import is_label_word, label_kind, label_stance
from stream_guard.policies.text import Line, read_definitions, stance

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from stream_guard.policies.outcomes import Outcome
    from stream_guard.policies.text import Section

__all__ = [
    "ANSWER_WORDS",
    "CodeLabel",
    "LabelPair",
    "OutputLabel",
    "code_labels",
    "find_label_pairs",
    "output_labels",
]

ANSWER_WORDS: Final = re.compile(
    r"\b(?:classif\w+|return|output|answer|respond|response|reply|label\w*|verdict|decision|result|"
    r"emit|must\s+(?:read|be|say)|choose|rate|antwort\w*|ausgabe|gib|répon\w+|sortie|respond\w+|respuesta|resposta|"
    r"salida|saída|devuelve\w*|devolva|rispond\w+|risposta|odpowie\w*|odpowiedz|antwoord\w*|cevap\w*|yan\u0131tla\w*|"
    r"svar\w*)\b|出力|回答|答え|判定|输出|返回|답하|답변|출력|ответ\w*|вывод|відпові\w*|أجب|الإجابة|उत्तर",
    re.IGNORECASE,
)
_OUTPUT: Final = re.compile(
    r"^\W{0,8}(?:output|label|verdict|answer|ausgabe|sortie|salida|出力|输出)[*_`\s]{0,4}[:\uff1a]"
    r"\W{0,8}([\w-]{1,40})(?P<rest>.*)$",
    re.IGNORECASE,
)
_LABEL_WHEN: Final = re.compile(
    r"\b(?:label|return|output|answer|respond(?: with)?|reply(?: with)?|use|assign)\W{1,4}(?:it\s+|as\s+|with\s+){0,2}"
    r"[`*\"'\u201c]{0,3}([\w-]{1,40})[`*\"'\u201d]{0,3}\s*[,:]?\s*(?:when|if|where|for|means|=)(?=\W)",
    re.IGNORECASE,
)
_CODE: Final = re.compile(r"[A-Z]{1,8}\d{1,3}")
_CODE_LABEL: Final = re.compile(
    r"(?<![A-Za-z0-9.-])([A-Z]{1,8}\d{1,3})[`*_]{0,4}"
    r"(?:\s{0,2}[(\[]\W{0,3}([\w-]{1,40})(?=[^\w-])[^)\]\n]{0,40}[)\]]?"  # FR2 (INVALID)
    r"|\s{0,2}(?:[:=]|->|=>|\u2192)?\s{0,2}[`*]{0,3}([A-Z][A-Z_]{1,39})(?![\w-])"  # FR2: INVALID
    r"|\s[^;|\n]{1,200}?(?:->|=>|\u2192)\s{0,2}[`*]{0,3}([A-Z][A-Z_]{1,39})(?![\w-]))"  # FR2 - x -> INVALID
)
_NEGATED: Final = re.compile(r"^(?:not|non|no|kein|keine|nicht|pas|sin)[_ -]?(.+)$", re.IGNORECASE)
_CONDITION: Final = re.compile(
    r"^\W*(?:when|if|where|for|means|wenn|falls|si)\b|^[`*_\"'\s]*=", re.IGNORECASE
)
_LABEL_IN_HEADING: Final = re.compile(
    r"\b(?:label|output|answer|verdict)\s*[:\uff1a=]?\s*[`*\"']{0,3}([\w-]{1,40})|[(\[]\s*([01])\s*[)\]]",
    re.IGNORECASE,
)
_OR: Final = re.compile(
    r"^\W{0,12}(?:or|oder|ou|o|или|または|或|/|\|)?\W{0,12}(?:with\s|as\s|mit\s)?\W{0,4}$",
    re.IGNORECASE,
)
_QUOTED_PHRASE: Final = re.compile(r"[`\"“']([\w-]{2,12}(?: [\w-]{2,12}){1,2})[`\"”']")
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
    """The words for violating and safe, the line of each (from 1), and the way they were found.

    ``others`` are the further outcomes.
    """

    violates: str
    safe: str
    violates_line: int
    safe_line: int
    how: str
    others: tuple[Outcome, ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        """All of its words."""
        return (self.violates, self.safe, *(outcome.word for outcome in self.others))

    def is_further(self, word: str | None) -> bool:
        """Return whether a word is that of a further outcome."""
        return any(outcome.word == word for outcome in self.others)

    def leaning(self, word: str) -> bool | None:
        """Return whether a label says violating; None if it does not say so, or leaves it to people."""
        means = {"violates": True, "safe": False, "undetermined": None}
        own = {outcome.word: means[outcome.decision] for outcome in self.others}
        own |= {self.violates: True, self.safe: False}
        if word in own:
            return own[word]
        stance_of = label_stance(word)
        return True if stance_of is None and label_kind(word) is False else stance_of


class OutputLabel(NamedTuple):
    """The label of an ``Output:`` line, the words after it, and its line (from 1)."""

    word: str
    rest: str
    line: int


def output_labels(lines: Iterable[Line]) -> Iterator[OutputLabel]:
    """Yield each ``Output: LABEL`` on a line of its own.

    Words may follow a known label in capitals or back-ticks: ``VALID, if unsure``, ``INVALID + ESCALATE``.
    """
    for line in lines:
        if not (match := _OUTPUT.match(line.text)):
            continue
        word, rest = match[1].strip("_"), match["rest"]
        alone = not rest.strip("`*_\"'”»」.,;:!)] \t")
        if not alone and (_CONDITION.match(rest) or _names_other(word, rest)):
            continue  # a rule about answers, not the label of this section
        if alone or (is_label_word(word) and (not word.islower() or rest[:1] in {"`", "*"})):
            yield OutputLabel(word, "" if alone else rest, line.number)


def _names_other(word: str, rest: str) -> bool:
    """Return whether the words after a label name its opposite: ``VALID or INVALID``."""
    others = {label_stance(w) for w in _BARE.findall(rest) if w.isupper() or w in {"0", "1"}}
    return (not label_stance(word)) in others


class CodeLabel(NamedTuple):
    """A code, the label in brackets after it, and where both start and end in the line (from 0)."""

    code: str
    word: str
    start: int
    end: int


def code_labels(line: Line) -> Iterator[CodeLabel]:
    """Yield each code of a line with the known label in brackets after it: ``FR2 (INVALID) - title``."""
    for match in _CODE_LABEL.finditer(line.text):
        word = next(group for group in match.groups()[1:] if group)
        if is_label_word(word) and not word.isdigit():
            yield CodeLabel(match[1], word, match.start(), match.end())


class _Pairs:
    """Collects pairs: the first word of each kind."""

    def __init__(self) -> None:
        self.pairs: list[LabelPair] = []

    def offer(self, words: Iterable[tuple[str, bool | None, int]], how: str) -> None:
        """Add a pair if the words (word, violates, line) include one of each kind."""
        kinds: dict[bool, tuple[str, int]] = {}
        for word, leaning, line in words:
            if leaning is not None:
                kinds.setdefault(leaning, (word, line))
        if len(kinds) == 2:  # noqa: PLR2004 - one of each
            (violates, violates_line), (safe, safe_line) = kinds[True], kinds[False]
            self.pairs.append(LabelPair(violates, safe, violates_line, safe_line, how))


def _quoted(text: str) -> Iterator[tuple[str, bool | None]]:
    """Yield the quoted words of a line, each with its stance, or that of the words after it."""
    matches = list(_QUOTED.finditer(text))
    for index, match in enumerate(matches):
        word = next(group for group in match.groups() if group)
        end = matches[index + 1].start() if index + 1 < len(matches) else len(text)
        own = label_stance(word)
        if own is None and _CODE.fullmatch(word):
            continue  # a category's code, not a label
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
    """Return every statement of a pair, the most reliable first.

    Less reliable statements are read only if there are no others.
    """
    sections = tuple(sections)
    found = _Pairs()
    outputs: list[tuple[str, bool | None, int]] = []
    defined: list[tuple[str, bool | None, int]] = []
    for section in sections:
        for word, _, number in output_labels(section.lines):
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
    if not found.pairs:
        for how, words in _other_statements(sections):
            found.offer(words, how)
    return tuple(found.pairs)


def _other_statements(
    sections: tuple[Section, ...],
) -> Iterator[tuple[str, list[tuple[str, bool | None, int]]]]:
    """Yield the less reliable statements of a pair, each with its name."""
    lines = [line for section in sections for line in section.lines]
    yield (
        "labels in headings",
        [
            (match[1] or match[2], stance(section.title), section.line)
            for section in sections
            if (match := _LABEL_IN_HEADING.search(section.title))
        ],
    )
    yield "label conditions", [word for line in lines for word in _conditions(line)]
    alternatives: list[tuple[str, bool | None, int]] = []
    for section in sections:
        about_answers = ANSWER_WORDS.search(section.title) is not None
        for line in section.lines:
            if about_answers or ANSWER_WORDS.search(line.text):
                alternatives.extend(_alternatives(line))
    yield "one of two", alternatives
    rows = [item for section in sections for item in read_definitions(section.lines) if item.header]
    yield (
        "verdict column",
        [
            (cell, label_stance(cell), item.line)
            for item in rows
            for cell in (part.strip("`*_ ") for part in item.meaning.split(" | "))
            if cell.isupper()
        ],
    )
    titles = [Line(section.line, section.title) for section in sections]
    yield (
        "labels after codes",
        [
            (found.word, label_stance(found.word), line.number)
            for line in (*titles, *lines)
            for found in code_labels(line)
        ],
    )
    asked = [line for line in lines if ANSWER_WORDS.search(line.text)]
    yield (
        "quoted words on several lines",
        [
            (w, v, line.number)
            for line in asked
            for w, v in (*_quoted(line.text), *_phrases(line.text), *_quoted_after(line.text))
        ],
    )


def _quoted_after(text: str) -> Iterator[tuple[str, bool | None]]:
    """Yield quoted words with the stance of the words before them: ``If it is disallowed, respond "Stop"``."""
    end = 0
    for match in _QUOTED.finditer(text):
        word = next(group for group in match.groups() if group)
        if label_stance(word) is None and _CODE.fullmatch(word) is None:
            yield word, stance(text[end : match.start()])
        end = match.end()


def _phrases(text: str) -> Iterator[tuple[str, bool | None]]:
    for match in _QUOTED_PHRASE.finditer(text):
        yield match[1], label_stance(match[1])


def _conditions(line: Line) -> Iterator[tuple[str, bool | None, int]]:
    """Yield the labels of ``Label 1 when ...``, with the stance of the condition, or else their own."""
    matches = list(_LABEL_WHEN.finditer(line.text))
    for index, match in enumerate(matches):
        end = matches[index + 1].start() if index + 1 < len(matches) else len(line.text)
        leaning = stance(line.text[match.end() : end], first=True)
        own = label_stance(match[1])
        yield (
            match[1],
            own
            if own is not None and not match[1].isdigit()
            else leaning
            if leaning is not None
            else own,
            line.number,
        )


def _alternatives(line: Line) -> Iterator[tuple[str, bool | None, int]]:
    """Yield two alternatives, if one has a stance of its own or negates the other; the other is the opposite."""
    text = line.text
    values = [(m[2].strip("`\"' "), m.span(2)) for m in _JSON_KEY.finditer(text)]
    quoted = [(next(g for g in m.groups() if g), m.span()) for m in _QUOTED.finditer(text)]
    capitals = [(m[1], m.span()) for m in _BARE.finditer(text) if m[1].isupper()]
    for words in (values, quoted, capitals):
        if len(words) != 2 or words[0][0] == words[1][0]:  # noqa: PLR2004 - two alternatives
            continue
        (first, (_, end)), (second, (start, _)) = words
        if words is not values and _OR.match(text[end:start]) is None:
            continue
        violates = _first_violates(first, second)
        if violates is not None:
            yield first, violates, line.number
            yield second, not violates, line.number
            return


def _first_violates(first: str, second: str) -> bool | None:
    """Return whether the first of two alternatives is the violating one; None where that is unknown."""
    one, other = label_stance(first), label_stance(second)
    if one is None and other is None:
        for word, base, violates in ((first, second, False), (second, first, True)):
            if (match := _NEGATED.match(word)) and match[1].casefold() == base.casefold():
                return violates
        return None
    if one is None:
        return not other
    return one if other is None else None


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
