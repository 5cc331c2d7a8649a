"""Finds the labels of a policy's text beyond violating and safe: for people to decide, or a milder action. Pure.

Only words that are labels by custom are found, and only where the text states them as answers. All others can be
declared in ``policy.yaml``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from stream_guard.policies.label_words import is_for_people, is_label_word, label_kind
from stream_guard.policies.labels import ANSWER_WORDS, code_labels, output_labels
from stream_guard.policies.outcomes import FoundOutcome, Outcome
from stream_guard.policies.text import Line, read_definitions
from stream_guard.policies.word_codes import EXAMPLES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from stream_guard.policies.labels import LabelPair
    from stream_guard.policies.text import Section

__all__ = ["find_outcomes"]

_MARKED: Final = re.compile(r"[`\"\u201c\u00ab\u300c*]([\w-]{1,40})[`\"\u201d\u00bb\u300d*]")
_CAPITALS: Final = re.compile(r"(?<![\w.-])([\w-]{2,40})(?![\w-])")
_SEPARATOR: Final = re.compile(
    r"[\s`*\"'\u201c\u201d\u00ab\u00bb\u300c\u300d{}:]*(?:(?:,|/|\||;|\bor\b|\boder\b|\bou\b|\bo\b|\u3001|\bили\b)"
    r"[\s`*\"'\u201c\u201d\u00ab\u00bb\u300c\u300d{}:]*|label\W*){1,4}"
)
_JOINED: Final = re.compile(r"[+&]\W*$|\band\W*$", re.IGNORECASE)
_ACTION_NAME: Final = re.compile(r"[a-z][a-z0-9_.-]{0,39}")


def find_outcomes(sections: Sequence[Section], pair: LabelPair) -> tuple[FoundOutcome, ...]:
    """Return every further outcome that the text states, each once, in the order of the text."""
    known = {pair.violates.casefold(), pair.safe.casefold()}
    found: dict[str, FoundOutcome] = {}
    for word, line, how in sorted(_stated(sections, pair), key=lambda stated: stated[1]):
        folded = word.casefold()
        outcome = None if folded in known else _outcome(word)
        if outcome is None:
            continue
        seen = found.get(folded, FoundOutcome(outcome, ()))
        if all(line != place[0] for place in seen.places):
            found[folded] = FoundOutcome(seen.outcome, (*seen.places, (line, how)))
    return tuple(found.values())


def _stated(sections: Sequence[Section], pair: LabelPair) -> Iterator[tuple[str, int, str]]:
    """Yield the words that the text states as answers, each with its line and the kind of place."""
    for section in sections:
        for word, _, number in output_labels(section.lines):
            yield word, number, "output lines"
        for line in (Line(section.line, section.title), *section.lines):
            for code in code_labels(line):
                yield code.word, line.number, "labels after codes"
        about_answers = ANSWER_WORDS.search(section.title) is not None
        for line in section.lines:
            yield from ((word, line.number, "list of labels") for word in _in_list(line.text, pair))
            if EXAMPLES.search(section.title):
                continue
            if about_answers or ANSWER_WORDS.search(line.text):
                yield from ((word, line.number, "words of answers") for word in _asked(line.text))
        yield from _in_definitions(section.lines, pair)


def _in_list(text: str, pair: LabelPair) -> Iterator[str]:
    """Yield the words of a list of labels that has both words of the pair or one with a further label."""
    run: list[str] = []
    end = -1
    for match in _CAPITALS.finditer(text):
        word = match[1]
        if not is_label_word(word) and word not in {pair.violates, pair.safe}:
            if word.casefold() in {"or", "oder", "ou", "o", "или", "label"}:
                continue
            yield from _if_list(run, pair)
            run, end = [], -1
            continue
        if end < 0 or _SEPARATOR.fullmatch(text[end : match.start()]) is None:
            yield from _if_list(run, pair)
            run = []
        run.append(word)
        end = match.end()
    yield from _if_list(run, pair)


def _if_list(run: list[str], pair: LabelPair) -> Iterator[str]:
    words = {word.casefold() for word in run}
    if len(words) > 2 and {pair.violates.casefold(), pair.safe.casefold()} <= words:  # noqa: PLR2004 - beyond a pair
        yield from run


def _asked(text: str) -> Iterator[str]:
    """Yield the words for people of a line about answers, quoted or in capitals: ``If unsure, return ESCALATE``.

    ``INVALID + ESCALATE`` is a label that also asks for a person, and no label of its own.
    """
    quoted = {match.start(1) for match in _MARKED.finditer(text)}
    for match in _CAPITALS.finditer(text):
        stated = match.start() in quoted or match[1].isupper()
        if stated and is_for_people(match[1]) and not _JOINED.search(text[: match.start()]):
            yield match[1]


def _in_definitions(lines: Iterable[Line], pair: LabelPair) -> Iterator[tuple[str, int, str]]:
    """Yield the terms beside a definition of one of the pair's words, and the cells of verdict columns."""
    items = read_definitions(lines)
    own = {pair.violates.casefold(), pair.safe.casefold()}
    if any(item.term.casefold() in own for item in items):
        for item in items:
            yield item.term, item.line, "definitions"
    for item in items:
        if item.header:
            cells = (cell.strip("`*_ ") for cell in item.meaning.split(" | "))
            yield from (
                (cell, item.line, "verdict column")
                for cell in cells
                if cell.isupper() and label_kind(cell) is not None
            )


def _outcome(word: str) -> Outcome | None:
    kind = label_kind(word)
    if kind is None:
        return None
    if kind:
        return Outcome(word, "undetermined", needs_review=True)
    action = word.casefold().replace("-", "_")
    return Outcome(word, "violates", action if _ACTION_NAME.fullmatch(action) else None)
