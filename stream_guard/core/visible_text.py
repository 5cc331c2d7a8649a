"""Text from outside made safe to print: what steers a terminal is written out. Pure."""

from __future__ import annotations

import unicodedata


def escape(text: str) -> str:
    r"""Return a text with every control, format and unassigned character written out, as ``\x1b``."""
    return "".join(
        one
        if one == "\t" or not unicodedata.category(one).startswith("C")
        else one.encode("unicode_escape").decode("ascii")
        for one in text
    )
