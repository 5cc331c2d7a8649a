"""Reads what a person types, or a pipe brings, without blocking the event loop."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import io
import os
import sys
import termios
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

__all__ = ["PROMPT", "typed_lines"]

PROMPT: Final = "> "
_READ_BYTES: Final = 1 << 16


async def typed_lines() -> AsyncIterator[str]:
    """Yield each line of standard input until its end; at a terminal with a prompt, editing and a history.

    The next line is read when the caller asks for it, so that a prompt follows the answer to the last line.
    """
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[str | None] = asyncio.Queue()
    asked = threading.Semaphore(0)

    def read() -> None:
        # The event loop may be closed when the line comes.
        with contextlib.suppress(RuntimeError):
            asked.acquire()
            # Standard input that is closed or cannot be read is at its end.
            with contextlib.suppress(OSError):
                for line in _lines():
                    loop.call_soon_threadsafe(lines.put_nowait, line)
                    asked.acquire()
            loop.call_soon_threadsafe(lines.put_nowait, None)

    with _terminal_kept():
        # Nothing can interrupt a thread that waits for a person, so the program must not wait for it.
        threading.Thread(target=read, name="typed lines", daemon=True).start()
        while True:
            asked.release()
            line = await lines.get()
            if line is None:
                return
            yield line


def _lines() -> Iterator[str]:
    if sys.stdin.isatty():
        return _prompted()
    try:
        number = sys.stdin.fileno()
    except io.UnsupportedOperation:
        return iter(sys.stdin)
    return _piped(number)


def _prompted() -> Iterator[str]:
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - importing it gives input() editing and a history
    while True:
        try:
            yield input(PROMPT)
        except EOFError:
            return


def _piped(number: int) -> Iterator[str]:
    # Not sys.stdin: a thread that waits in it holds its lock, and Python then cannot exit.
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    rest = ""
    while content := os.read(number, _READ_BYTES):
        *whole, rest = (rest + decoder.decode(content)).split("\n")
        yield from whole
    if rest:
        yield rest


@contextlib.contextmanager
def _terminal_kept() -> Iterator[None]:
    """Restore the terminal's mode at the end, because the thread may still wait in readline."""
    if not sys.stdin.isatty():
        yield
        return
    mode = termios.tcgetattr(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, mode)
