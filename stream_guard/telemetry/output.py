"""Turns what other code writes to stdout and stderr into JSON lines, for processes whose log is JSON.

Libraries in C, and the engine's own process, write to the two file descriptors and know nothing of our log. Both
descriptors become a pipe. A small program reads it and writes one JSON object a line to the true stderr.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from typing import TextIO

_PROGRAM: Final = Path(__file__).with_name("json_lines.py")
_END_TIMEOUT_S: Final = 2.0
"""How long an exit waits for the last lines. A child of ours that still runs keeps the pipe open."""


@functools.cache
def capture_output() -> TextIO:
    """Send stdout and stderr of this process, and of those it starts, through the program until it exits.

    A second call changes nothing.

    Returns:
        The true stderr, for lines that are JSON objects already.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    true_stderr = os.dup(2)
    reader, writer = os.pipe()
    program = subprocess.Popen(  # noqa: S603 - our own file
        [sys.executable, "-I", "-S", str(_PROGRAM)],
        stdin=reader,
        stdout=true_stderr,
        stderr=true_stderr,
        # Ctrl-C in a terminal goes to the whole group.
        start_new_session=True,
    )
    os.close(reader)
    for descriptor in (1, 2):
        os.dup2(writer, descriptor)
    os.close(writer)
    atexit.register(_release, program, true_stderr)
    return os.fdopen(os.dup(true_stderr), "w", encoding="utf-8", buffering=1)


def _release(program: subprocess.Popen[bytes], true_stderr: int) -> None:
    """Close our end of the pipe, and wait for the lines that are in it."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    for descriptor in (1, 2):
        os.dup2(true_stderr, descriptor)
    with contextlib.suppress(subprocess.TimeoutExpired):
        program.wait(_END_TIMEOUT_S)
