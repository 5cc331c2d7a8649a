"""Normalises text, so that disguised words look the same. Pure, idempotent and linear in the text.

Case, compatibility forms, look-alikes, invisible characters, repeated letters and spaces are normalised. Rules match
the normal form, and duplicates are recognised by it. The model judges the original text, and verdicts hash it.

The steps, repeated until nothing changes:

1. NFKC and case folding (UAX #15, The Unicode Standard 3.13).
2. Remove invisible characters: controls, zero-width and other default-ignorable characters, direction marks,
   variation selectors, surrogates. Also remove combining marks that compose with no letter, such as strokes through
   words. Accents that compose stay, because they change the word: Spanish "ano" is not "año".
3. Replace look-alikes by ASCII (``confusables.txt``, of UTS #39). ASCII does not change: UTS #39 would turn ``m``
   into ``rn`` and ``1`` into ``l``, and patterns would be hard to write. Each character is folded alone, so that a
   part of a text becomes the same part of its normal form.
4. Shorten three or more of one letter to two: "noooo" becomes "noo". One would confuse "ass" with "as". For "fuuuck",
   :func:`normalise_forms` also returns the form with one. Words of a single repeated letter ("www", "xxx", "kkk"),
   digits and signs stay.
5. Replace runs of white space by one space, and strip both ends.
"""

from __future__ import annotations

import re
import unicodedata
from importlib import resources
from typing import Final

__all__ = ["fold", "normalise", "normalise_forms"]

_PASSES_MAX: Final = 8
"""Two or three are enough; the bound keeps the time linear under any later Unicode version."""

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
"""Blocks of letters with accents whose base letter may be a look-alike."""


def _deleted() -> set[int]:
    return {code for low, high in (*_INVISIBLE, *_MARKS) for code in range(low, high + 1)}


def _look_alikes() -> dict[str, str]:
    """Return the replacement of each look-alike, including letters with accents."""
    table: dict[str, str] = {"\u2800": " "}  # the empty Braille pattern, which looks like a space
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
# For speed: `re` has a table for characters up to U+FFFF only, so all beyond are one range.
_FOLDABLE: Final = re.compile(
    f"[{re.escape(''.join(chr(code) for code in _FOLDED if code <= 0xFFFF))}]"  # noqa: PLR2004 - U+FFFF
)
_BEYOND: Final = re.compile("[\U00010000-\U0010ffff]")
_ASCII: Final = {code: None for code in _deleted() if code < 0x80} | dict.fromkeys(  # noqa: PLR2004 - ASCII's end
    (*range(0x09, 0x0E), *range(0x1C, 0x20)), " "
)
# Linear: at most three characters are read at each position.
_RUN: Final = re.compile(r"([^\W\d_])\1{2,}")
_RUN_ASCII: Final = re.compile(r"([a-z])\1{2,}")


def normalise(text: str) -> str:
    """Return the normal form of any text, also with surrogates."""
    text = fold(text)
    return _RUN.sub(_two, text) if _has_run(text) else text


def normalise_forms(text: str) -> tuple[str, ...]:
    """Return the normal form and, where letters are repeated, the form with each of them once."""
    text = fold(text)
    if not _has_run(text):
        return (text,)
    return (_RUN.sub(_two, text), _RUN.sub(_one, text))


def fold(text: str) -> str:
    """Normalise a text, except for repeated letters."""
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
        # No replacement is itself replaced, so a further pass would change nothing.
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
