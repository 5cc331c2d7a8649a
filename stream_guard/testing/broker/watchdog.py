"""Runs commands one after another, and kills the running one when the parent process ends.

Run as a script, by its path, with nothing imported but the standard library. It notices this in two ways: the pipe
that its parent holds ends, or it has another parent. So no Java process outlives a demo or a test run, even after
SIGKILL.

    watchdog.py PIPE_FD DIRECTORY COMMANDS

COMMANDS is a JSON list of argument lists; the first that fails ends it with its exit code. SIGTERM is
passed on. DIRECTORY, if given, is removed when the parent is gone. The parent gives it its own process group. So an
interrupt at the terminal does not reach it, and one SIGKILL to the
group reaches both.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

_POLL_S = 0.2
_STOPPED = 143  # 128 + SIGTERM, as a shell says it


class Watchdog:
    """Supervises one command at a time."""

    def __init__(self, pipe: int) -> None:
        """Watch the reading end of the parent's pipe."""
        self._pipe = pipe
        self._parent = os.getppid()
        self._child: subprocess.Popen[bytes] | None = None
        self._stopping = False
        signal.signal(signal.SIGTERM, self._on_sigterm)

    def _on_sigterm(self, _signal: int, _frame: FrameType | None) -> None:
        self._stopping = True
        if self._child is not None:
            self._child.terminate()

    def _orphaned(self) -> bool:
        readable, _, _ = select.select([self._pipe], [], [], _POLL_S)
        return bool(readable) or os.getppid() != self._parent

    def run(self, command: list[str]) -> int | None:
        """Run a command to its end; return its exit code, or None when the parent is gone."""
        # Blocked meanwhile, so that the signal finds either no child or one that it can end.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            if self._stopping:
                return _STOPPED
            self._child = subprocess.Popen(command, preexec_fn=_unblock)  # noqa: S603, PLW1509
        finally:
            _unblock()
        while (code := self._child.poll()) is None:
            if self._orphaned():
                self._child.kill()
                self._child.wait()
                return None
        return code


def _unblock() -> None:
    """Take SIGTERM again; also in the child, which would inherit the mask. There is one thread."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def main() -> int:
    """Return the exit code of the command that failed, or 0."""
    pipe, directory, commands = int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
    watchdog = Watchdog(pipe)
    for command in commands:
        code = watchdog.run(command)
        if code is None:
            if directory:
                shutil.rmtree(directory, ignore_errors=True)
            return 1
        if code:
            return code if code > 0 else 128 - code
    return 0


if __name__ == "__main__":
    sys.exit(main())
