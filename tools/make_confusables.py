"""Makes stream_guard/policies/rules/confusables.txt from Unicode's own confusables.txt (UTS #39).

    python tools/make_confusables.py confusables.txt > stream_guard/policies/rules/confusables.txt

The source is https://www.unicode.org/Public/security/VERSION/confusables.txt. The head of the written file says what
is kept, and why.
"""

from __future__ import annotations

import sys
import unicodedata
from collections import defaultdict
from pathlib import Path

# Scripts whose letters look like Latin ones. Alef is an 'l' to UTS #39, but no Arabic text is meant so.
LIKE_LATIN = {
    "LATIN", "GREEK", "CYRILLIC", "ARMENIAN", "COPTIC", "CHEROKEE", "LISU", "DESERET", "OLD",
    "GOTHIC", "RUNIC", "VAI", "WARANG", "CANADIAN", "TIFINAGH", "CARIAN", "LYCIAN", "LYDIAN",
    "ELBASAN", "CAUCASIAN", "MODIFIER",
}  # fmt: skip
# UTS #39 changes ASCII, too; we do not, so these prototypes go back to the character that they stand for.
ASCII_AGAIN = {"rn": "m", "''": '"'}
# Letters in boxes and small capitals are common disguises that UTS #39 knows only in part.
NAMED = (
    "LATIN LETTER SMALL CAPITAL ", "NEGATIVE SQUARED LATIN CAPITAL LETTER ",
    "NEGATIVE CIRCLED LATIN CAPITAL LETTER ",
)  # fmt: skip
HEADER = """\
# Look-alikes and what they become: one prototype a line, then a tab, then every character that becomes it.
# Made by tools/make_confusables.py of Unicode's confusables.txt, version {version} (UTS #39).
# Copyright (c) 1991-2024 Unicode, Inc. Licensed under Unicode-3.0: see LICENSE-UNICODE beside this file.
#
# Kept: letters, punctuation and symbols that look like ASCII, as that ASCII. Added: small capitals, and letters in
# filled circles and squares; decimal digits, by their value. A letter that is not itself like an ASCII letter becomes
# what its capital is like. Left out: what NFKC and case folding change anyway; ASCII itself; other numbers; marks;
# letters of alphabets that are no kin of Latin's (to UTS #39 an alef is an 'l'); letters that would become several.
"""


def stable(character: str) -> bool:
    """Return whether NFKC and case folding leave this character alone."""
    return unicodedata.normalize("NFKC", character).casefold() == character


def script(character: str) -> str:
    """Return the first word of a character's name, which of a letter is its script's."""
    return unicodedata.name(character, "").split(" ")[0]


def letter(character: str) -> bool:
    """Return whether this is a letter."""
    return unicodedata.category(character).startswith("L")


def read(path: Path) -> tuple[str, dict[str, str]]:
    """Return the version and the prototype of each character."""
    version, prototypes = "", {}
    for line in path.read_text(encoding="utf-8-sig").splitlines():
        if line.startswith("# Version:"):
            version = line.partition(":")[2].strip()
        parts = line.partition("#")[0].split(";")
        if len(parts) >= 2:  # noqa: PLR2004 - a data line
            source, target = ("".join(chr(int(x, 16)) for x in p.split()) for p in parts[:2])
            prototypes[source] = target
    return version, prototypes


def ascii_of(source: str, prototypes: dict[str, str]) -> str | None:
    """Return the ASCII that a character looks like and may become, or None."""
    target = unicodedata.normalize("NFKC", prototypes.get(source, "")).casefold()
    target = ASCII_AGAIN.get(target, target)
    if not target or not target.isascii():
        return None
    if letter(source):
        # A letter stays letters, and one letter only but for Latin's own ligatures: U+044B is no 'bl', U+0431 no '6'.
        whole = target.isalpha() and (len(target) == 1 or script(source) == "LATIN")
        return target if whole or target in set("'\"-:!?") else None
    if len(target) > 1 and any(character.isalnum() for character in target):
        return None
    # UTS #39 maps an upright stroke to 'l'; a stroke that is not a letter stays an ASCII stroke.
    return "|" if target == "l" else target


def main() -> None:
    """Write the table."""
    version, prototypes = read(Path(sys.argv[1]))
    made: dict[str, str] = {}
    for source in map(chr, range(0x80, 0x110000)):
        category = unicodedata.category(source)
        if not stable(source) or category[0] in "CM" or category == "Zs":
            continue
        if category[0] == "N":
            if category == "Nd":
                made[source] = str(unicodedata.decimal(source))
            continue
        capital = source.upper()
        named = unicodedata.name(source, "")
        prefix = next((p for p in NAMED if named.startswith(p)), "")
        found = ascii_of(source, prototypes)
        if found is None and letter(source) and len(capital) == 1:
            of_capital = ascii_of(capital, prototypes)
            found = of_capital if of_capital and of_capital.isalpha() else None
        if found is None and prefix and len(named) == len(prefix) + 1:
            found = named[-1].lower()
        if found and (not letter(source) or script(source) in LIKE_LATIN):
            made[source] = found
    lines: dict[str, list[str]] = defaultdict(list)
    for source, target in made.items():
        lines[target].append(source)
    sys.stdout.write(HEADER.format(version=version))
    for target in sorted(lines):
        sys.stdout.write(f"{target}\t{''.join(sorted(lines[target]))}\n")


if __name__ == "__main__":
    main()
