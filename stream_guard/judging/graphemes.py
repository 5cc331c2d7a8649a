"""Finds places where a text may be cut: ends of paragraphs, sentences and words, and never within a grapheme. Pure.

A grapheme is what a reader takes for one character (Unicode Standard Annex 29). The rules here are a little stricter
than those of the annex: some places between two graphemes are not used either.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

__all__ = ["cut_after", "cut_before", "may_cut"]

_ENDS: Final = (
    re.compile(r"\n\s*\n"),
    re.compile(r"[\n\r\u2028\u2029]+"),
    re.compile(r"[.!?\u2026\u3002\uff01\uff1f\u0964][\"'\u201d\u2019)\]]*\s+|[\u3002\uff01\uff1f]"),
    re.compile(r"\s+"),
)
"""Ends of paragraphs, lines, sentences and words, best first."""
_ZERO_WIDTH_JOINER: Final = "\u200d"
_VIRAMA: Final = 9
_EXTENDING: Final = re.compile(
    r"[\u200c\u200d\u1160-\u11ff\ud7b0-\ud7fb\uff9e\uff9f\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f]"
)
_LEADING: Final = re.compile(
    r"[\u1100-\u115f\ua960-\ua97c\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd]"
)
_FLAG: Final = re.compile(r"[\U0001f1e6-\U0001f1ff]+\Z")


def may_cut(text: str, at: int) -> bool:
    """Return whether a text may be cut before position ``at``: not within a grapheme."""
    if not 0 < at < len(text):
        return True
    before, after = text[at - 1], text[at]
    if _FLAG.match(before) and _FLAG.match(after):
        # Two letters make a flag.
        flags = _FLAG.search(text, 0, at)
        return flags is not None and len(flags[0]) % 2 == 0
    continues = (
        unicodedata.category(after) in ("Mn", "Me", "Mc") or _EXTENDING.match(after) is not None
    )
    leads = (
        before == _ZERO_WIDTH_JOINER
        or _LEADING.match(before) is not None
        or unicodedata.combining(before) == _VIRAMA
    )
    return not (continues or leads or (before == "\r" and after == "\n"))


def cut_before(text: str, start: int, end: int) -> int:
    """Return where a piece of text from ``start`` should end: at most at ``end``, and after ``start``.

    It looks for the best end in the last quarter. A piece that is one long grapheme is cut within it, at ``end``.
    """
    least = end - (end - start) // 4
    for pattern in _ENDS:
        best = max(
            (found.end() for found in pattern.finditer(text, least, end) if may_cut(text, found.end())),
            default=None,
        )  # fmt: skip
        if best is not None:
            return best
    return next((at for at in range(end, start, -1) if may_cut(text, at)), end)


def cut_after(text: str, start: int, end: int) -> int:
    """Return where a piece of text that ends at ``end`` should begin: at ``start`` or later, else at ``end``."""
    for pattern in _ENDS:
        for found in pattern.finditer(text, start, end):
            if found.end() < end and may_cut(text, found.end()):
                return found.end()
    return next((at for at in range(start, end) if may_cut(text, at)), end)
