"""Undoes disguises that an innocent text may have as well, so that only rules that escalate may use it. Pure.

After the normal form: letters in tag characters and as regional indicators, digits and signs in place of letters,
signs between letters, and letters apart. The last become words without knowing where a word ends, so they are
matched separately. All steps are linear in the text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from stream_guard.policies.rules.matching import Matcher, Target
from stream_guard.policies.rules.normalise import normalise

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

__all__ = ["Disguised", "letters_apart", "unmask"]

# Tag characters repeat ASCII, and no font shows them.
_CODED: Final = {0xE0000 + code: code for code in range(0x20, 0x7F)} | {
    0x1F1E6 + number: ord("a") + number for number in range(26)
}
_CODED_RUN: Final = re.compile("[\U0001f1e6-\U0001f1ff]+|[\U000e0020-\U000e007e]+")
_DOTS: Final = re.compile(r"[\[({<](?:\.|dot)[\])}>]")
_SIGNS: Final = r"[.*_~`|\[\](){}\\/'\"^+,:;=<>#\u00b7\u2022\u2019-]"
# Linear: a run is entered only at its start, since the character before it is part of a word.
_BETWEEN: Final = re.compile(rf"(?<=\w){_SIGNS}+(?=[\w@$!])|(?<=\w)_+|_+(?=\w)")
_SPOILER: Final = re.compile(r"\|\|+")
_WORD: Final = re.compile(r"[\w@$!]+")
_LEET: Final = dict(zip("03456789@$", "oeasgtbgas", strict=True))
_TABLES: Final = tuple(str.maketrans(_LEET | {"1": one, "!": one}) for one in "il")
_APART_LETTERS_MIN: Final = 3


def unmask(text: str) -> tuple[str, ...]:
    """Return the normal form without disguises: once, or twice where a 1 or ``!`` may be an i or an l."""
    if not text.isascii():
        text = _CODED_RUN.sub(lambda run: f" {run[0].translate(_CODED)} ", text)
    text = _DOTS.sub(".", normalise(text))
    text = _BETWEEN.sub("", _SPOILER.sub("", text))
    forms = [_WORD.sub(partial(_letters, table=table), text) for table in _TABLES]
    return tuple(dict.fromkeys(normalise(form) for form in forms))


def letters_apart(form: str) -> str:
    """Return the words whose letters stand apart, such as ``b u y``, without their spaces; one run a line."""
    if len(form) < 2 * _APART_LETTERS_MIN - 1:
        return ""
    runs: list[str] = []
    run: list[str] = []
    for token in (*form.split(" "), ""):
        if len(token) == 1 and token.isalpha():
            run.append(token)
        elif token[:1].isalnum() or not token:
            if len(run) >= _APART_LETTERS_MIN:
                runs.append("".join(run))
            run = []
    return "\n".join(runs)


def _letters(found: re.Match[str], table: dict[int, str]) -> str:
    """Return a word with letters in place of digits and signs; a number stays a number."""
    word = found[0]
    bare = word.rstrip("!")
    if not any(character.isalpha() for character in bare):
        return word
    return bare.translate(table) + word[len(bare) :]


@dataclass(slots=True, frozen=True, eq=False)
class Disguised:
    """The terms and patterns of rules that escalate, for texts without their disguises.

    Attributes:
        words: matches forms of :func:`unmask`.
        apart: matches :func:`letters_apart` of them.
    """

    words: Matcher
    apart: Matcher

    @classmethod
    def make(
        cls,
        terms: Iterable[tuple[str, Target]],
        patterns: Iterable[tuple[str, Target]],
        rules: Collection[int],
    ) -> Disguised | None:
        """Compile the terms and patterns of some rules; None if these have none.

        Args:
            terms: in their normal form.
            patterns: folded, and valid.
            rules: indices of the rules that escalate.
        """
        terms = [one for one in terms if one[1].rule in rules]
        patterns = [one for one in patterns if one[1].rule in rules]
        if not terms and not patterns:
            return None
        words: dict[tuple[str, Target], None] = {}
        apart: dict[tuple[str, Target], None] = {}
        for term, target in terms:
            for form in unmask(term):
                words[form, target] = None
                bare = form.replace(" ", "")
                if len(bare) >= _APART_LETTERS_MIN:
                    apart[bare, target._replace(whole_word=False)] = None
        return cls(
            Matcher(words, patterns, fold_case=True), Matcher(apart, patterns, fold_case=True)
        )

    def hits(self, text: str) -> dict[int, str]:
        """Return each rule that matches a disguised text, with the label of its hit."""
        found: dict[int, str] = {}
        for form in unmask(text):
            found = self.words.hits(form) | found
            apart = letters_apart(form)
            if apart:
                found = self.apart.hits(apart) | found
        return found
