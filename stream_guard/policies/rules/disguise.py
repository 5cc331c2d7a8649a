"""Undoes disguises that an innocent text may have as well, so that only rules that escalate may use it. Pure.

After the normal form: letters in tag characters, in variation selectors and as regional indicators, digits and signs
in place of letters, signs between letters, dots in words or brackets, and letters apart. The last become words without
knowing where a word ends, so they are matched separately. All steps are linear in the text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from stream_guard.policies.rules.matching import Matcher, Target
from stream_guard.policies.rules.normalise import normalise

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

__all__ = ["Disguised", "letters_apart", "unmask"]

_PRINTABLE: Final = range(0x20, 0x7F)
# Tag characters repeat ASCII, variation selectors from the 17th on stand for bytes from 16 on, and no font shows them.
_CODED: Final = (
    {0xE0000 + code: code for code in _PRINTABLE}
    | {0xE0100 + code - 16: code for code in _PRINTABLE}
    | {0x1F1E6 + number: ord("a") + number for number in range(26)}
)
_CODED_RUN: Final = re.compile(
    "[\U0001f1e6-\U0001f1ff]+|[\U000e0020-\U000e007e]+|[\U000e0110-\U000e016e]+"
)
_DEFANGED: Final = re.compile(
    r" ?[\[({<]{1,3} ?(?:\.|d[o0]t) ?[\])}>]{1,3} ?|(?<=[^\W_])[ _/-]{1,3}d[o0]t[ _/-]{1,3}(?=[^\W_])|(?<=\w) \. (?=\w)"
)
_SCHEME: Final = re.compile(r"\bhxxp(s?)\b")
# Besides ASCII: Latin-1's signs, general punctuation, arrows to dingbats, CJK and vertical punctuation, emoji. Marks
# are none of them: vowel signs of Indic scripts are part of a word.
_OTHER_SIGNS: Final = (
    r"\u00a4\u00a6-\u00a9\u00ab-\u00b1\u00b4\u00b6-\u00b8\u00bb-\u00bf\u00d7\u00f7\u02b0-\u02ff\u2010-\u2027\u2030-\u205e"
    r"\u2190-\u2bff\u2e00-\u2e7f\u3001-\u303f\u30fb\ufe10-\ufe6b\uff01-\uff20\U0001f000-\U0001f1e5\U0001f200-\U0001faff"
)
_SIGNS: Final = rf"[.*_~`\[\](){{}}\\/'\"^+,:;=<>#%&?{_OTHER_SIGNS}-]"
_BAR: Final = "|"
# In place of letters. A 1, ``!``, ``|`` and the inverted ``!`` are an i or an l.
_LIKE_LETTERS: Final = dict(
    zip("023456789@$\u20ac\u00a3\u00a7\u00a2\u00a5", "ozeasgtbgaselscy", strict=True)
)
_LIKE_I_OR_L: Final = "1!\u00a1"
_IN_WORD: Final = r"\w@$!\u20ac\u00a3\u00a7\u00a2\u00a5\u00a1"
# Linear: a run is entered only at its start, since the character before it is part of a word.
_BETWEEN: Final = re.compile(
    rf"(?<=[{_IN_WORD}])(?:{_SIGNS}|\|)+(?=[{_IN_WORD}])|(?<=\w)_+|_+(?=\w)"
)
_BETWEEN_BUT_BARS: Final = re.compile(
    rf"(?<=[{_IN_WORD}|]){_SIGNS}+(?=[{_IN_WORD}|])|(?<=\w)_+|_+(?=\w)"
)
_SPOILER: Final = re.compile(r"\|\|+|>!|!<")
_WORD: Final = re.compile(rf"[{_IN_WORD}]+")
_WORD_OR_BAR: Final = re.compile(rf"[{_IN_WORD}|]+")
_LETTERS_IN_TURN: Final = re.compile(r"(?<!\w)[^\W\d_]([@$!0])[^\W\d_](?:\1[^\W\d_])+(?!\w)")
_TABLES: Final = tuple(
    str.maketrans(_LIKE_LETTERS | dict.fromkeys(_LIKE_I_OR_L, one)) for one in "il"
)
_ALIKE: Final = str.maketrans(_LIKE_LETTERS | dict.fromkeys(f"{_LIKE_I_OR_L}{_BAR}i", "l"))
_MAY_BE_I_OR_L: Final = re.compile(rf"[{_LIKE_I_OR_L}{_BAR}]")
_IN_TOKEN: Final = re.compile(r"\w")
_APART_LETTERS_MIN: Final = 3
# Letters built of signs.
_BUILT: Final = {
    "\\/": "v", "/\\": "a", "()": "o", "[]": "o", "|_|": "u", "|-|": "h", "|\\|": "n", "|)": "d", "|>": "p", "|<": "k",
}  # fmt: skip
_BUILT_LETTER: Final = re.compile("|".join(map(re.escape, _BUILT)))


class Form(NamedTuple):
    """A text without its disguises.

    Attributes:
        text: its words.
        apart: the words whose letters stand apart, one a line; empty if there are none.
    """

    text: str
    apart: str


def unmask(text: str) -> tuple[Form, ...]:
    """Return the normal form without disguises, in each way that it may be read, once each.

    A 1, ``!`` or ``|`` is an i, or an l, or either in a form where i and l are one letter. Hidden letters may be words
    of their own or belong to the word beside them. Where a dot was written as a word, one form keeps the other signs.
    """
    forms: dict[Form, None] = {}
    for shown in _decoded(text):
        plain = normalise(shown)
        built = _BUILT_LETTER.sub(lambda letter: _BUILT[letter[0]], plain)
        for one in (plain,) if built == plain else (plain, built):
            forms |= dict.fromkeys(_forms(one))
    return tuple(forms)


def _decoded(text: str) -> tuple[str, ...]:
    if text.isascii() or _CODED_RUN.search(text) is None:
        return (text,)
    return (
        _CODED_RUN.sub(lambda run: f" {run[0].translate(_CODED)} ", text),
        _CODED_RUN.sub(lambda run: run[0].translate(_CODED), text),
    )


def _forms(text: str) -> Iterator[Form]:
    dotted = _DEFANGED.sub(".", text)
    if dotted != text:
        yield Form(_SCHEME.sub(r"http\1", dotted), "")
    whole = _LETTERS_IN_TURN.sub(lambda run: run[0].replace(run[1], ""), dotted)
    bare = _BETWEEN.sub("", _SPOILER.sub("", whole))
    for table in _TABLES:
        form = normalise(_WORD.sub(partial(_letters, table=table), bare))
        yield Form(form, letters_apart(form, table))
    if _MAY_BE_I_OR_L.search(whole) is not None:
        # Not normalised again: two l of this form may be an i and an l.
        barred = _BETWEEN_BUT_BARS.sub("", whole)
        alike = _WORD_OR_BAR.sub(partial(_letters, table=_ALIKE), barred)
        yield Form(alike, letters_apart(bare, _ALIKE))


def letters_apart(form: str, table: dict[int, str]) -> str:
    """Return the words whose letters stand apart, such as ``b u y``, without their spaces; one run a line.

    Args:
        form: a normal form.
        table: letters for signs and digits that stand for them.
    """
    if len(form) < 2 * _APART_LETTERS_MIN - 1:
        return ""
    runs: list[str] = []
    run: list[str] = []
    for token in (*form.split(" "), ""):
        # A letter with signs around it, such as ``*b*``, ``b,`` or ``(b)``.
        bare = token if len(token) == 1 else token.strip(".*_~`()[]{}'\",:;-|/<>")
        letter = bare.translate(table) if len(bare) == 1 and bare != _BAR else ""
        if letter.isalpha():
            run.append(bare)
        elif not token or _IN_TOKEN.search(token) is not None:
            # Columns of numbers are no word: half of it must be letters.
            if len(run) >= _APART_LETTERS_MIN and 2 * sum(map(str.isalpha, run)) >= len(run):
                runs.append("".join(run).translate(table))
            run = []
    return "\n".join(runs)


def _letters(found: re.Match[str], table: dict[int, str]) -> str:
    """Return a word with letters in place of digits and signs; a number stays a number."""
    word = found[0]
    bare = word.rstrip("!|")
    if not any(character.isalpha() for character in bare):
        return word
    return bare.translate(table) + word[len(bare) :]


@dataclass(slots=True, frozen=True, eq=False)
class Disguised:
    """The terms and patterns of rules that escalate, for texts without their disguises.

    Attributes:
        words: matches the text of forms.
        apart: matches their words whose letters stand apart.
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
            words[term, target] = None
            written = [form.text for form in unmask(term)]
            for form in (*written, *(form.translate(_ALIKE) for form in written)):
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
            found = self.words.hits(form.text) | found
            if form.apart:
                found = self.apart.hits(form.apart) | found
        return found
