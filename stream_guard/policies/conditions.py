"""Finds what the conditions beside answers say: ``Return 0 if the post violates, otherwise 1``. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from stream_guard.policies.label_words import is_for_people, label_stance
from stream_guard.policies.labels import ANSWER_WORDS, LabelPair
from stream_guard.policies.text import read_definitions, stance
from stream_guard.policies.word_codes import EXAMPLES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stream_guard.policies.text import Section

__all__ = ["POLAR", "asked_pairs", "stated_meanings"]

POLAR: Final = frozenset("0 1 yes no true false y n ja nein oui non sí si não sim да нет".split())  # noqa: SIM905 - one line
"""Words that mean nothing by themselves: the condition beside them decides."""
_COUPLES: Final = (
    *(("true", "false"), ("yes", "no"), ("y", "n"), ("ja", "nein"), ("oui", "non")),
    *(("sí", "no"), ("sim", "não"), ("да", "нет")),
)
_ANSWER: Final = re.compile(
    r"(?P<mark>[`*\"'\u201c\u00ab\u300c]{1,3})(?P<quoted>[\w-]{1,40})[`*\"'\u201d\u00bb\u300d]{1,3}"
    r"|(?:\b(?:return|output|answer|say|write|respond(?: with)?|reply(?: with)?|assign|give|label(?: it)?(?: as)?|use|"
    r"and|or|otherwise|else|antworte(?: mit)?|gib|sonst|responde|responda|sinon|sino)\b[\s,:]{1,3})"
    r"(?P<asked>0|1|yes|no|true|false|y|n|ja|nein|oui|non|sí|não|sim)\b"
    r"|(?<![\w.-])(?P<bare>[A-Z][A-Z_-]{1,39}|[01])(?![\w.-])",
    re.IGNORECASE,
)
_WHEN: Final = re.compile(
    r"^[\s,:()}\]\"'`*]{0,5}(?:(?:only\s+)?(?:when|if|where|for|means|meaning|wenn|falls|si|se|(?P<unless>unless))\b|=)\s*(?P<what>.*)",
    re.IGNORECASE | re.DOTALL,
)
_IF: Final = re.compile(
    r"\b(?:if|when|where|wenn|falls|si|se|(?P<unless>unless))\b(?P<what>.*)$",
    re.IGNORECASE | re.DOTALL,
)
_REST: Final = re.compile(
    r"^\W*(?:otherwise|else|if\s+not|sonst|sinon|de lo contrario|caso contrário|"
    r"(?:(?:if|when|wenn|falls|si)\s+)?(?:it|they|the\s+\w{2,20})?\s*(?:is|are|does|do)?\s*(?:not|n't)\s*(?:so)?)\W*$",
    re.IGNORECASE,
)
_ENDS_WITH_REST: Final = re.compile(r"\b(?:otherwise|else|if not|sonst|sinon)\b\W*$", re.IGNORECASE)
_BREAKS: Final = re.compile(
    r"\b(?P<breaks>break\w*|broken|breach\w*|inappropriate|unacceptable|unsuitable|against\s+(?:the|this|our)\s+\w+)\b"
    r"|\b(?P<keeps>appropriate|suitable|fine|compl(?:y|ies|iant)|in line with|follows?)\b",
    re.IGNORECASE,
)
_NEGATION: Final = re.compile(
    r"(?:\b(?:not|no|none|nothing|never|cannot|without|neither)\b|n't\b)[^.;,]{0,30}$",
    re.IGNORECASE,
)
_CLAUSE: Final = re.compile(r"[.;\n]|,\s+(?:and|but|then)\b")


def stated_meanings(sections: Sequence[Section]) -> dict[str, bool]:
    """Return whether answers violate, by the folded word, where the conditions beside them say so.

    A word with two meanings has none. Only words that mean nothing by themselves, or no label by custom, are read.
    """
    found: dict[str, set[bool]] = {}
    for section in sections:
        if any(map(EXAMPLES.search, (section.title, *section.parents))):
            continue
        about_answers = ANSWER_WORDS.search(section.title) is not None
        for line in section.lines:
            if not line.in_code and (about_answers or ANSWER_WORDS.search(line.text)):
                for word, violates in _of_line(line.text):
                    found.setdefault(word, set()).add(violates)
        for item in read_definitions(section.lines):
            leaning = stance(item.meaning) if item.term.casefold() in POLAR else None
            if leaning is not None:
                found.setdefault(item.term.casefold(), set()).add(leaning)
    return {word: next(iter(leanings)) for word, leanings in found.items() if len(leanings) == 1}


def asked_pairs(sections: Sequence[Section]) -> Iterator[LabelPair]:
    """Yield the pair of words such as true and false that the text asks for without quotes: ``Return true if ...``."""
    asked: dict[str, tuple[str, int]] = {}
    for section in sections:
        if any(map(EXAMPLES.search, (section.title, *section.parents))):
            continue
        for line in section.lines:
            if not line.in_code and ANSWER_WORDS.search(line.text):
                for match in _ANSWER.finditer(line.text):
                    word = _word(match)
                    asked.setdefault(word.casefold(), (word, line.number))
    for violates, safe in _COUPLES:
        if violates in asked and safe in asked:
            (one, one_line), (other, other_line) = asked[violates], asked[safe]
            yield LabelPair(one, other, one_line, other_line, "words that the text asks for")


def _of_line(text: str) -> Iterator[tuple[str, bool]]:
    answers = [match for match in _ANSWER.finditer(text) if _is_answer(match)]
    meant: list[bool | None] = []
    for index, match in enumerate(answers):
        after = text[match.end() : answers[index + 1].start() if index + 1 < len(answers) else None]
        before = text[answers[index - 1].end() if index else 0 : match.start()]
        meant.append(_meaning(after, before, after_answer=index > 0))
    complete = [_is_rest(text, answers, index) for index in range(len(answers))]
    if len(answers) == 2 and any(complete):  # noqa: PLR2004 - one answer, and the other
        one, other = meant
        if complete[1] and one is not None:
            meant[1] = not one
        elif complete[0] and other is not None:
            meant[0] = not other
    for match, violates in zip(answers, meant, strict=True):
        if violates is not None:
            yield _word(match).casefold(), violates


def _is_answer(match: re.Match[str]) -> bool:
    word = _word(match)
    if word.casefold() in POLAR:
        return True
    if match["bare"] and not word.isupper():
        return False
    return label_stance(word) is None and not is_for_people(word) and bool(match["quoted"])


def _word(match: re.Match[str]) -> str:
    return match["quoted"] or match["asked"] or match["bare"]


def _meaning(after: str, before: str, *, after_answer: bool) -> bool | None:
    """Return what the condition after an answer says, or else the one before it; None where neither is clear."""
    if (match := _WHEN.match(after)) is not None:
        return _leaning(_CLAUSE.split(match["what"], maxsplit=1)[0], unless=bool(match["unless"]))
    clause = re.split(r"[.;\n]", before)[-1]
    own = (
        _WHEN.match(clause) is None or not after_answer
    )  # else it is the condition of the answer before
    if own and (match := _IF.search(clause)) is not None:
        return _leaning(match["what"], unless=bool(match["unless"]))
    return None


def _is_rest(text: str, answers: Sequence[re.Match[str]], index: int) -> bool:
    """Return whether an answer is for all other posts: ``otherwise 1``, ``1 if it is not``."""
    match = answers[index]
    end = answers[index + 1].start() if index + 1 < len(answers) else len(text)
    before = text[answers[index - 1].end() if index else 0 : match.start()]
    asked = match["asked"]
    led = before + (match[0][: -len(asked)] if asked else "")
    after = _CLAUSE.split(text[match.end() : end], maxsplit=1)[0]
    return (
        _REST.match(after.strip("`*\"' ")) is not None and bool(after.strip("`*\"' ."))
    ) or _ENDS_WITH_REST.search(led.rstrip(" ,:`*\"'")) is not None


def _leaning(words: str, *, unless: bool) -> bool | None:
    leaning = stance(words)  # "legal but prohibited" has none
    if leaning is None and (match := _BREAKS.search(words)) is not None:
        negated = _NEGATION.search(words[: match.start()]) is not None
        leaning = (match["breaks"] is not None) != negated
    return leaning if leaning is None else leaning != unless
