r"""Makes untrusted text safe to print. Pure.

A post, a key, a header or a file can hold characters that steer a terminal, reorder what is read, or hide.
Everything that prints such text passes it through :func:`visible_line` or :func:`visible_text` first. They write out
each such character as Python does: ``\x1b``, ``\u202e``, ``\U000e0041``. A backslash of the text itself stays one
backslash, so the result is for people to read, and cannot be turned back.

Written out are:

- the controls C0, DEL and C1, with them every escape sequence (CSI, OSC 8 links, OSC 52 clipboards)
- line and paragraph separators (U+2028, U+2029)
- marks that change the direction of text (U+061C, U+200E, U+200F, U+202A to U+202E, U+2066 to U+2069)
- characters without width, tag characters and fillers that look like nothing
- variation selectors, except one U+FE0E or U+FE0F after a character, which chooses the form of an emoji
- surrogates, private use and unassigned characters
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["visible_line", "visible_text"]

# ``str.isprintable`` calls these printable, though nothing is seen of them: the Default_Ignorable_Code_Point property
# of Unicode (DerivedCoreProperties.txt), less the categories C and Z, and the blank Braille pattern.
_UNSEEN: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\ufe00-\ufe0d\uffa0\U000e0100-\U000e01ef]"
    "|(?:^|(?<=[\ufe00-\ufe0f]))[\ufe0e\ufe0f]"
)
# White space that is not a line's end has a width and does no harm.
_SPACES: Final = frozenset(
    "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
)


def visible_line(text: str) -> str:
    r"""Return a text on one line, for tables, log lines and messages: line ends and tabs are written out, too."""
    return _visible(text, "")


def visible_text(text: str) -> str:
    r"""Return a text that may span lines: ``\n`` and tabs stay, ``\r\n`` becomes ``\n``, ``\r`` is written out."""
    return _visible(text.replace("\r\n", "\n"), "\n\t")


def _visible(text: str, kept: str) -> str:
    shown = _UNSEEN.sub(lambda match: _written_out(match[0]), text)
    if shown.isprintable():
        return shown
    return "".join(
        one if one.isprintable() or one in kept or one in _SPACES else _written_out(one)
        for one in shown
    )


def _written_out(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
