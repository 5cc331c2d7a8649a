"""What commands share in talking to a terminal or a pipe.

What it must never do: let text that came from elsewhere steer a terminal, or mix a library's words into a result.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["printable", "stdout_kept_clean"]

# Escape sequences, and marks that turn the direction of what follows; line ends and tabs stay.
_STEERING: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    """Return a text in which nothing steers a terminal; what did is U+FFFD."""
    return _STEERING.sub("\ufffd", text.replace("\r\n", "\n"))


@contextlib.contextmanager
def stdout_kept_clean() -> Iterator[None]:
    """Send what libraries in C print to stdout to stderr, so that a result can be piped."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
