"""Copies lines from stdin to stdout, each as one JSON object; a line that is one already stays as it is.

It runs as a program of its own, so it outlives a crash of the process whose output it reads. It uses the standard
library alone and starts in 20 ms. See :mod:`stream_guard.telemetry.output`.
"""

from __future__ import annotations

import json
import re
import signal
import sys
from datetime import UTC, datetime
from typing import Final

_LINE_BYTES_MAX: Final = 1 << 16
_ESCAPES: Final = re.compile(r"\x1b\[[0-9;]*m")
# As logging's default, vLLM's and uvicorn's formats begin: a name, perhaps, and then the level.
_LEVEL: Final = re.compile(r"^(?:\([^)]*\)\s*)?(DEBUG|INFO|WARNING|ERROR|CRITICAL)\b")
# As glog's, Torch's and ONNX Runtime's begin: a letter and the date.
_LETTER: Final = re.compile(r"^\[?([IWEF])\d{4}\b")
# The commands' one line about what went wrong.
_OWN_ERROR: Final = "stream-guard: "
_LETTERS: Final = {"I": "info", "W": "warning", "E": "error", "F": "critical"}


def as_object(line: str) -> str | None:
    """Return a line as one JSON object on one line; None for a blank line."""
    text = _ESCAPES.sub("", line).rstrip()
    if not text:
        return None
    if text.startswith("{"):
        try:
            json.loads(text)
        except ValueError:
            pass
        else:
            return text
    return json.dumps(
        {
            "event": text,
            "level": level_of(text),
            "logger": "output",
            "timestamp": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        },
        ensure_ascii=False,
    )


def level_of(text: str) -> str:
    """Return the level that a line states; ``info`` if it states none."""
    word, letter = _LEVEL.match(text), _LETTER.match(text)
    if text.startswith(_OWN_ERROR):
        return "error"
    if word is not None:
        return word[1].lower()
    return _LETTERS[letter[1]] if letter is not None else "info"


def main() -> None:
    """Copy until every writer has closed its end."""
    # A stop of the service may signal this process too. The last lines of the service still have to come through.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while line := sys.stdin.buffer.readline(_LINE_BYTES_MAX):
        made = as_object(line.decode("utf-8", "replace"))
        if made is not None:
            sys.stdout.buffer.write(made.encode("utf-8", "replace") + b"\n")
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
