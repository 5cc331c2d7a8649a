"""Normalises patterns like the texts that they match. Pure.

Normalisation replaces look-alikes, so that a Russian pattern has letters that no normalised text contains. They are
folded here in the same way; what cannot be folded is reported. ASCII patterns keep their meaning.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from stream_guard.policies.rules.normalise import fold

__all__ = ["fold_pattern"]

_STRETCHED: Final = re.compile(
    r"(?:([^\W\d_])\1{2,}(?=[^\W\d_])|(?<=[^\W\d_])([^\W\d_])\2{2,})(?![*?{])"
)


def fold_pattern(pattern: str) -> tuple[str, list[str]]:
    """Return the normalised pattern, and descriptions of its parts that normalised text never contains."""
    pattern = unicodedata.normalize("NFC", pattern)
    made: list[str] = []
    faults: dict[str, None] = {}
    in_class = quoted = False
    outside: list[str] = []  # the pattern without classes and escapes
    i = 0
    while i < len(pattern):
        character = pattern[i]
        if character == "\\" and i + 1 < len(pattern):
            quoted = {"Q": True, "E": False}.get(pattern[i + 1], quoted)
            made.append(pattern[i : i + 2])
            outside.append("\0")
            if not in_class and pattern[i + 1] in "tnrfv":
                faults[f"{made[-1]}: white space is one space"] = None
            i += 2
            continue
        if not quoted and character == "[" and not in_class:
            in_class = True
            outside.append("\0")
        elif not quoted and character == "]" and in_class and pattern[i - 1 : i] not in {"[", "^"}:
            in_class = False
        elif not in_class:
            outside.append(character)
        made.append(_fold(pattern, i, faults, in_class=in_class, quoted=quoted))
        i += 1
    rest = "".join(outside)
    if "  " in rest:
        faults["two spaces: white space is one space"] = None
    for run in _STRETCHED.finditer(rest):
        faults[f"{run[0]!r}: normalised text has at most two of a repeated letter"] = None
    return "".join(made), list(faults)


def _fold(
    pattern: str, place: int, faults: dict[str, None], *, in_class: bool, quoted: bool
) -> str:
    character = pattern[place]
    if character.isascii():
        return character
    folded = " " if character.isspace() else fold(character)
    if folded == character:
        if in_class and _in_range(pattern, place):
            faults |= _folded_in_range(pattern, place)
        return character
    told = f"{character!r} (U+{ord(character):04X})"
    if not folded:
        faults[told] = None
        return ""
    if in_class and (len(folded) > 1 or _in_range(pattern, place)):
        faults[f"{told}, which becomes {folded!r}, in a range or a class"] = None
        return character
    if in_class or quoted:
        return folded
    return f"(?:{re.escape(folded)})" if len(folded) > 1 else re.escape(folded)


def _in_range(pattern: str, place: int) -> bool:
    """Return whether a character in a class starts or ends a range."""
    after, before = pattern[place + 1 : place + 3], pattern[max(place - 2, 0) : place]
    return (after[:1] == "-" and after[1:] not in {"", "]"}) or (
        before[1:] == "-" and before[:1] not in {"", "["}
    )


def _folded_in_range(pattern: str, place: int) -> dict[str, None]:
    """Describe the letters of a range starting here that normalised text never contains."""
    if pattern[place + 1 : place + 2] != "-":
        return {}
    low, high = pattern[place], pattern[place + 2]
    between = map(chr, range(ord(low), min(ord(high), ord(low) + 1_000) + 1))
    gone = [c for c in between if fold(c) != c]
    return {f"of {low}-{high}: {''.join(gone[:10])}": None} if gone else {}
