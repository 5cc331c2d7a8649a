"""One form for all the ways in which people write, and disguise, the same words. Pure, and linear in the text.

Capitals, compatibility forms, look-alikes, invisible characters, stretched letters and spaces are evened out, so that
rules match what is read and repeats are recognised. What it must never do: change what it has made (it is idempotent),
raise, or stand in for the post: the model judges, and verdicts hash, the text as it came.

In this order, until nothing changes any more:

1. NFKC and case folding (UAX #15, The Unicode Standard 3.13).
2. Invisible characters go: controls, zero-width and other default-ignorable characters, direction marks, variation
   selectors, surrogates; and marks from the combining-diacritics blocks that compose with no letter, such as strokes
   through words. An accent that does compose stays, since with it goes the word: Spanish "ano" is no year.
3. Look-alikes become the ASCII that they look like (``confusables.txt``, of UTS #39). ASCII itself is never changed:
   UTS #39 would make ``m`` ``rn`` and ``1`` ``l``, and nobody could write a pattern by heart. Each character is
   folded by itself, so that a part of a text becomes the same part of its normal form.
4. Three or more of one letter become two: "noooo" is "noo", and "ass" stays apart from "as", which one would not.
   For "fuuuck", :func:`normalise_forms` gives the form with one as well. A word of one letter only is left alone
   ("www", "xxx", "kkk"), and so are digits and signs, whose number means something.
5. Runs of white space become one space; none is left at the ends.
"""

from __future__ import annotations

import re
import unicodedata
from importlib import resources
from typing import Final

__all__ = ["fold", "normalise", "normalise_forms"]

_PASSES_MAX: Final = 8
"""Two or three do; the bound keeps the time linear whatever a later Unicode brings."""

_INVISIBLE: Final = (
    (0x00, 0x08), (0x0E, 0x1B), (0x7F, 0x84), (0x86, 0x9F), (0xAD, 0xAD), (0x34F, 0x34F),
    (0x61C, 0x61C), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F), (0x200B, 0x200F),
    (0x202A, 0x202E), (0x2060, 0x206F), (0x3164, 0x3164), (0xD800, 0xDFFF), (0xFE00, 0xFE0F),
    (0xFEFF, 0xFEFF), (0xFFA0, 0xFFA0), (0xFFF0, 0xFFFB), (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A),
    (0xE0000, 0xE0FFF),
)  # fmt: skip
_MARKS: Final = (
    (0x300, 0x36F), (0x483, 0x489), (0x1AB0, 0x1AFF), (0x1DC0, 0x1DFF), (0x20D0, 0x20FF),
    (0xFE20, 0xFE2F),
)  # fmt: skip
_COMPOSED: Final = ((0xC0, 0x24F), (0x370, 0x52F), (0x1E00, 0x1FFF))
"""Where letters with accents are whose own letter may be a look-alike."""


def _deleted() -> set[int]:
    return {code for low, high in (*_INVISIBLE, *_MARKS) for code in range(low, high + 1)}


def _look_alikes() -> dict[str, str]:
    """Return what each look-alike becomes, letters with accents included."""
    table: dict[str, str] = {"\u2800": " "}  # the empty Braille pattern, a space that is none
    file = resources.files("stream_guard.policies.rules").joinpath("confusables.txt")
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            target, _, sources = line.partition("\t")
            table |= dict.fromkeys(sources, target)
    marks = {chr(code) for low, high in _MARKS for code in range(low, high + 1)}
    for character in (chr(code) for low, high in _COMPOSED for code in range(low, high + 1)):
        decomposed = unicodedata.normalize("NFD", character)
        letter, accents = decomposed[0], decomposed[1:]
        if letter in table and character not in table:
            composed = unicodedata.normalize("NFC", table[letter] + accents)
            table[character] = "".join(c for c in composed if c not in marks)
    return table


_FOLDED: Final = str.maketrans(dict.fromkeys(map(chr, _deleted())) | _look_alikes())
# Classes of characters up to U+FFFF are a table to `re`, and a long list beyond; so those beyond are one range.
_FOLDABLE: Final = re.compile(
    f"[{re.escape(''.join(chr(code) for code in _FOLDED if code <= 0xFFFF))}]"  # noqa: PLR2004 - U+FFFF
)
_BEYOND: Final = re.compile("[\U00010000-\U0010ffff]")
_ASCII: Final = {code: None for code in _deleted() if code < 0x80} | dict.fromkeys(  # noqa: PLR2004 - ASCII's end
    (*range(0x09, 0x0E), *range(0x1C, 0x20)), " "
)
# A group of one class and a back-reference to it: at each place at most three characters are looked at.
_RUN: Final = re.compile(r"([^\W\d_])\1{2,}")
_RUN_ASCII: Final = re.compile(r"([a-z])\1{2,}")


def normalise(text: str) -> str:
    """Return the normal form of any text, surrogates and all."""
    text = fold(text)
    return _RUN.sub(_two, text) if _has_run(text) else text


def normalise_forms(text: str) -> tuple[str, ...]:
    """Return the normal form and, where letters are stretched, the one in which each such letter stands once."""
    text = fold(text)
    if not _has_run(text):
        return (text,)
    return (_RUN.sub(_two, text), _RUN.sub(_one, text))


def fold(text: str) -> str:
    """Return a text as :func:`normalise` does, stretched letters left as they are."""
    if not text.isascii():
        text = _fold_unicode(text)
        if not text.isascii():
            return " ".join(text.split())
    text = text.lower()
    if not text.isprintable():
        text = text.translate(_ASCII)
    return " ".join(text.split()) if "  " in text else text.strip(" ")


def _fold_unicode(text: str) -> str:
    for _ in range(_PASSES_MAX):
        text = unicodedata.normalize("NFKC", text).casefold()
        if _FOLDABLE.search(text) is not None or _BEYOND.search(text) is not None:
            text = text.translate(_FOLDED)
        # Nothing that is folded is folded to what is folded, so this is what a further pass would leave as it is.
        if unicodedata.is_normalized("NFKC", text) and text.casefold() == text:
            break
    return text


def _has_run(text: str) -> bool:
    return (_RUN_ASCII if text.isascii() else _RUN).search(text) is not None


def _two(run: re.Match[str]) -> str:
    return run[0] if _stands_alone(run) else run[1] * 2


def _one(run: re.Match[str]) -> str:
    return run[0] if _stands_alone(run) else run[1]


def _stands_alone(run: re.Match[str]) -> bool:
    text, (start, end) = run.string, run.span()
    return not (text[max(start - 1, 0) : start].isalpha() or text[end : end + 1].isalpha())
