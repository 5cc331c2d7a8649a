"""Finds libfaketime, by which one consumer's clock jumps and nobody else's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

LIBRARY_VARIABLE: Final = "FAKETIME_LIBRARY"
_ROOTS: Final = (Path("/usr"), Path("/usr/local"))
_PATTERNS: Final = (
    "lib/*/faketime/libfaketimeMT.so.1",
    "lib*/faketime/libfaketimeMT.so.1",
)


def library() -> str:
    """Return the path of libfaketime for programs with threads.

    Raises:
        RuntimeError: it is not installed.
    """
    named = os.environ.get(LIBRARY_VARIABLE)
    found = [Path(named)] if named else [p for r in _ROOTS for w in _PATTERNS for p in r.glob(w)]
    if not found or not found[0].exists():
        message = (
            f"the fault 'clock jumps' needs libfaketime, and {named or 'it'} is not there: apt-get install faketime, "
            f"or name the library in {LIBRARY_VARIABLE}, or leave the fault out: --without 'clock jumps'"
        )
        raise RuntimeError(message)
    return str(found[0])


def environment(file: Path) -> dict[str, str]:
    """Return the variables by which a program reads how far its clock is off from a file, such as ``+60``."""
    return {
        "LD_PRELOAD": library(),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_NO_CACHE": "1",
        # Timeouts and sleeps go by the monotonic clock, which no jump of a wall clock moves.
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }


def set_off(file: Path, seconds: int) -> None:
    """Write how far the clock is off."""
    partial = file.with_suffix(".part")
    partial.write_text(f"{seconds:+d}\n")
    partial.replace(file)
