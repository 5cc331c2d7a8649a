"""Finds the answers that a text lets the model choose from, and what each means. Pure.

``Return 0 if it violates, else 1`` gives 0 another meaning than custom does. ``One of: SPAM, SCAM, NONE`` has more
answers than two. A word means what the condition beside it says, else what it means by custom, else what its definition
says. In a list with a known safe answer, the rest violates.
"""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from stream_guard.policies.conditions import asked_pairs, stated_meanings
from stream_guard.policies.label_words import (
    escalates,
    is_for_people,
    is_label_word,
    label_kind,
    label_stance,
)
from stream_guard.policies.labels import ANSWER_WORDS, LabelPair, find_label_pairs
from stream_guard.policies.outcomes import FoundOutcome, Outcome
from stream_guard.policies.text import Line, read_definitions, stance
from stream_guard.policies.word_codes import EXAMPLES, is_no_code

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from stream_guard.policies.text import Section

__all__ = ["Choice", "code_runs", "further_outcomes", "read_answers", "read_pairs"]

_MARK: Final = r"[`*\"'\u201c\u201d\u00ab\u00bb\u300c\u300d]{0,3}"
_TOKEN: Final = re.compile(
    rf"(?:{_MARK}|<\w{{1,20}}>)(?<![\w.-])([^\W_][\w-]{{0,39}})(?![\w-])(?:{_MARK}|</\w{{1,20}}>)"
)
_OR: Final = r"(?:\b(?:or|oder|ou|o|lub|albo|veya|nebo)\b|\u0438\u043b\u0438|\u307e\u305f\u306f|\u6216|\ub610\ub294)"
_JOINS: Final = re.compile(_OR)
_BETWEEN: Final = re.compile(rf"\s{{0,4}}[,/|;\u3001\uff0c]?\s{{0,4}}{_OR}?\s{{0,4}}")
_KEY: Final = re.compile(r"\s{0,4}:")
_CODE: Final = re.compile(r"[A-Z]{1,8}\d{1,3}")
_ASKS_ONE: Final = re.compile(r"[:\uff1a]\s*$")
_INTRODUCES: Final = re.compile(
    r"\b(?:one\s+of|labels?|options|answers?|verdicts?|outputs?|classes|values)\b[^:.\n]{0,40}[:\uff1a]\W{0,6}$",
    re.IGNORECASE,
)
_DECIDES: Final = re.compile(r"\b(?:decide|determine|judge|evaluate|assess)\b", re.IGNORECASE)
_SLASHES: Final = re.compile(r"\s*[/|]\s*")
_NEGATED: Final = re.compile(r"(?:not|non|no|un)[_ -]?(.+)", re.IGNORECASE)
_ITEM: Final = re.compile(
    r"^\s*(?:[-*+\u2022]|\d{1,2}[.)])\s+([`*\"']{0,4})([^\W_][\w-]{0,39})[`*\"']{0,4}\s*(?:$|[:=(\u2013\u2014-]|(?:if|when|for|otherwise|else|unless)\b)"
)
_QUESTION: Final = re.compile(
    r"\b(?:return|answer|respond|reply|output|emit|say|write|label|classify|antworte|gib|responda|responde|devuelve|"
    r"réponds|répondez|rispondi|odpowiedz|antwoord)\b",
    re.IGNORECASE,
)
_ASKS_NUMBER: Final = re.compile(
    r"\b(?:number|score|level|severity|rating|scale|grade|zahl|stufe|niveau|nivel|numéro|número)\b",
    re.IGNORECASE,
)
_GIVES: Final = re.compile(r"\b(?:give|assign|score|from\s+\d+\s+to\s+\d+)\b", re.IGNORECASE)
_LEVEL: Final = re.compile(
    r"^\s*(?:[-*+\u2022]\s+)?[*_`]{0,3}(?:(?:level|score|severity|grade|stufe|niveau|nivel)\s+)?(\d{1,2})[*_`]{0,3}\s*"
    r"(?:[:=.)\u2013\u2014-]|\()\s*[*_`]{0,3}\s*(\S.*)$",
    re.IGNORECASE,
)
_ACTS: Final = re.compile(
    r"\b(?:remov\w+|delet\w+|block\w*|ban\w*|reject\w*|take[ns]?\s+down)\b", re.IGNORECASE
)
_ALONE_MAX: Final = 12
"""The most answers of one list. A longer list is of words, not of answers."""
_TWO: Final = 2


class Choice(NamedTuple):
    """One answer.

    Attributes:
        word: as the text writes it.
        violates: whether it says violating; None if it leaves the decision to people.
        line: from 1.
        how: where its meaning comes from: ``stated``, ``custom`` or ``assumed``.
        review: whether it also asks for a person.
    """

    word: str
    violates: bool | None
    line: int
    how: str
    review: bool = False


def read_pairs(sections: Sequence[Section]) -> tuple[LabelPair, ...]:
    """Return every statement of the words for violating and safe, the most reliable first.

    The words mean what the conditions beside them say, where those are clear.
    """
    meanings = stated_meanings(sections)
    pairs = tuple(_oriented(pair, meanings) for pair in find_label_pairs(sections))
    if pairs:
        return pairs
    if (pair := _pair(read_answers(sections))) is not None:
        return (pair,)
    return tuple(_oriented(pair, meanings) for pair in asked_pairs(sections))


def _pair(choices: Sequence[Choice]) -> LabelPair | None:
    violating = next((c for c in choices if c.violates), None)
    safe = next((c for c in choices if c.violates is False), None)
    if violating is None or safe is None:
        return None
    return LabelPair(violating.word, safe.word, violating.line, safe.line, "list of labels")


def _oriented(pair: LabelPair, meanings: Mapping[str, bool]) -> LabelPair:
    """Return the pair with its words exchanged where the text gives both the opposite meaning."""
    violates, safe = (meanings.get(word.casefold()) for word in (pair.violates, pair.safe))
    if (violates, safe) in {(False, True), (False, None), (None, True)}:
        return replace(
            pair,
            violates=pair.safe,
            safe=pair.violates,
            violates_line=pair.safe_line,
            safe_line=pair.violates_line,
            how=f"{pair.how}, by their conditions",
        )
    return pair


def read_answers(sections: Sequence[Section]) -> tuple[Choice, ...]:
    """Return the answers of a list or a scale that the text offers; empty where it offers neither."""
    return _read_list(sections) or _read_scale(sections)


def _read_list(sections: Sequence[Section]) -> tuple[Choice, ...]:
    """Return the answers of the longest list of answers whose meanings are known; empty where there is none."""
    meanings = stated_meanings(sections)
    defined = _definitions(sections)
    best: tuple[Choice, ...] = ()
    for words, line in _lists(sections):
        choices = _resolved(words, line, meanings, defined)
        if len(choices) > len(best):
            best = choices
    return best


def _read_scale(sections: Sequence[Section]) -> tuple[Choice, ...]:
    """Return the levels of a scale of which the text asks for the number, lowest first; empty where there is none.

    Higher is worse: a level above one that violates violates, and one below a safe one is safe.
    """
    lines = [line for section in sections for line in section.lines if not line.in_code]
    if not any(_asks_number(line.text) for line in lines):
        return ()
    levels: dict[int, tuple[str, int]] = {}
    for line in (*(Line(s.line, s.title) for s in sections), *lines):
        if (match := _LEVEL.match(line.text)) is not None:
            levels.setdefault(int(match[1]), (match[2], line.number))
    numbers = sorted(levels)
    if len(numbers) <= _TWO or numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        return ()
    meant = {number: _of_level(levels[number][0]) for number in numbers}
    lowest = next((n for n in numbers if meant[n] not in {None, False}), None)
    highest = next((n for n in reversed(numbers) if meant[n] is False), None)
    if lowest is None or (highest is not None and highest > lowest):
        return ()
    if highest is None:
        highest = numbers[0]
    return tuple(
        Choice(
            str(number),
            False if number <= highest else None if meant[number] == "people" else True,
            levels[number][1],
            "stated" if meant[number] is not None or not highest < number < lowest else "assumed",
            escalates(levels[number][0]),
        )
        for number in numbers
    )


def _asks_number(text: str) -> bool:
    asks = ANSWER_WORDS.search(text) or _GIVES.search(text)
    return asks is not None and _ASKS_NUMBER.search(text) is not None


def _of_level(words: str) -> bool | Literal["people"] | None:
    """Return what a level means: violating, safe, for people to decide, or nothing clear."""
    leaning = stance(words, first=True)
    acts = _ACTS.search(words) is not None
    if escalates(words) and not acts:
        return "people"
    return True if acts else leaning


def further_outcomes(choices: Sequence[Choice], pair: LabelPair) -> tuple[FoundOutcome, ...]:
    """Return the outcomes of a list of answers beyond a pair; none where the pair is not of the list."""
    words = {choice.word for choice in choices}
    if not {pair.violates, pair.safe} <= words:
        return ()
    return tuple(
        FoundOutcome(_outcome(choice), ((choice.line, _HOW[choice.how]),))
        for choice in choices
        if choice.word not in {pair.violates, pair.safe}
    )


_HOW: Final = {
    "stated": "list of labels",
    "custom": "list of labels",
    "assumed": "list of labels; assumed: the text does not say that it violates",
}


def _outcome(choice: Choice) -> Outcome:
    if choice.violates is None:
        return Outcome(choice.word, "undetermined", needs_review=True)
    if not choice.violates:
        return Outcome(choice.word, "safe")
    action = choice.word.casefold().replace("-", "_")
    return Outcome(
        choice.word, "violates", action if label_kind(choice.word) is False else None, choice.review
    )


def _lists(sections: Sequence[Section]) -> Iterator[tuple[list[str], int]]:
    """Yield the words of every list of answers, with its line."""
    for section in sections:
        if any(map(EXAMPLES.search, (section.title, *section.parents))):
            continue
        about_answers = ANSWER_WORDS.search(section.title) is not None
        lines = [line for line in section.lines if not line.in_code]
        for index, line in enumerate(lines):
            asks = about_answers or ANSWER_WORDS.search(line.text) is not None
            if not asks and _DECIDES.search(line.text) is None:
                continue
            yield from ((run, line.number) for run in _runs(line.text))
            if _ASKS_ONE.search(line.text):
                items = list(_items(lines[index + 1 :]))
                if len(items) >= _TWO and not _are_codes(items):
                    yield items, line.number


def _items(lines: Sequence[Line]) -> Iterator[str]:
    """Yield the words that the items of the list at the beginning of these lines name."""
    for line in lines:
        if not line.text.strip():
            continue
        match = _ITEM.match(line.text)
        if match is None:
            if line.text[:1].isspace():
                continue  # more words of the item above
            return
        word = match[2]
        if not (match[1] or word.isupper() or word.isdigit() or is_label_word(word)):
            return
        yield word


def _runs(text: str) -> Iterator[list[str]]:
    """Yield the words of every list in a line: ``SPAM, SCAM or NONE``, ``approve/reject``."""
    asked = _QUESTION.search(text) is not None
    run: list[re.Match[str]] = []
    for match in _TOKEN.finditer(text):
        if _JOINS.fullmatch(match[0]):
            continue
        if _KEY.match(text, match.end()):
            yield from _if_answers(run, text, asked=asked)
            run = []
            continue
        joined = run and _is_between(text[run[-1].end() : match.start()])
        if not joined:
            yield from _if_answers(run, text, asked=asked)
            run = []
        run.append(match)
    yield from _if_answers(run, text, asked=asked)


def code_runs(text: str) -> Iterator[set[str]]:
    """Yield the codes of every list of codes in a line: ``N0, N1 or N2``."""
    run: set[str] = set()
    end = -1
    for match in _TOKEN.finditer(text):
        if _JOINS.fullmatch(match[0]):
            continue
        if _CODE.fullmatch(match[1]) is None or (
            run and not _is_between(text[end : match.start()])
        ):
            yield run
            run = set()
        if _CODE.fullmatch(match[1]) is not None:
            run.add(match[1])
        end = match.end()
    yield run


def _is_between(text: str) -> bool:
    return bool(text.strip()) and _BETWEEN.fullmatch(text) is not None


def _if_answers(run: Sequence[re.Match[str]], text: str, *, asked: bool) -> Iterator[list[str]]:
    words = [match[1] for match in run]
    if not _TWO <= len(set(words)) == len(words) <= _ALONE_MAX:
        return
    if any(is_no_code(word) and not is_label_word(word) for word in words):
        return
    if _are_codes(words):
        return
    # Unquoted words in small letters are plain English, unless all of them are labels that the line asks for.
    marked = all(m[0] != m[1] or m[1].isupper() or m[1].isdigit() for m in run)
    gaps = [text[a.end() : b.start()] for a, b in pairwise(run)]
    slashes = all(map(_SLASHES.fullmatch, gaps)) and any(map(is_label_word, words))
    introduced = len(words) > _TWO and _INTRODUCES.search(text[: run[0].start()]) is not None
    if marked or introduced or (asked and (slashes or all(map(is_label_word, words)))):
        yield words


def _are_codes(words: Sequence[str]) -> bool:
    """Return whether words are the codes of categories, or the levels of a scale."""
    return all(map(_CODE.fullmatch, words)) or (
        all(map(str.isdigit, words)) and set(words) != {"0", "1"}
    )


def _definitions(sections: Sequence[Section]) -> dict[str, bool]:
    """Return what the text says of the words that it defines, by the word."""
    found: dict[str, bool] = {}
    for section in sections:
        if any(map(EXAMPLES.search, (section.title, *section.parents))):
            continue
        for item in read_definitions(section.lines):
            leaning = stance(item.meaning, first=True)
            if leaning is not None:
                found.setdefault(item.term.casefold(), leaning)
    return found


def _negates(word: str, words: Sequence[str]) -> str | None:
    """Return the other word that a word negates: ``not_fraud`` negates ``fraud``."""
    match = _NEGATED.fullmatch(word)
    if match is None:
        return None
    return next((w for w in words if w != word and w.casefold() == match[1].casefold()), None)


def _leaning_of(word: str) -> bool:
    leaning = label_stance(word)
    return True if leaning is None else leaning


def _resolved(
    words: Sequence[str], line: int, meanings: Mapping[str, bool], defined: Mapping[str, bool]
) -> tuple[Choice, ...]:
    """Return the words with their meanings; empty where none is known to be safe or none to violate."""
    choices: list[Choice] = []
    unknown: list[int] = []
    for word in words:
        folded = word.casefold()
        stated = meanings.get(folded)
        if stated is None and (base := _negates(word, words)) is not None:
            stated = _leaning_of(base) is False
        own = None if word.isdigit() and set(words) != {"0", "1"} else label_stance(word)
        if stated is not None:
            choices.append(Choice(word, stated, line, "stated"))
        elif own is not None:
            choices.append(Choice(word, own, line, "custom"))
        elif is_for_people(word):
            choices.append(Choice(word, None, line, "custom"))
        elif label_kind(word) is False:
            choices.append(Choice(word, True, line, "custom"))  # noqa: FBT003 - a field, not an option
        elif folded in defined:
            choices.append(Choice(word, defined[folded], line, "stated"))
        else:
            unknown.append(len(choices))
            choices.append(Choice(word, True, line, "assumed"))  # noqa: FBT003 - a field, not an option
    known = {choice.violates for choice in choices if choice.how != "assumed"}
    if len(words) == _TWO and len(unknown) == 1 and True in known:
        choices[unknown[0]] = choices[unknown[0]]._replace(violates=False)
        return tuple(choices)
    if False not in known or not any(choice.violates for choice in choices):
        return ()
    return tuple(choices)
