"""Imported by the fork server alone, before anything else: the engine's process lives and dies with ours.

What it must never do: be imported in the main process; its import has effects.

- A session of its own: Ctrl-C in a terminal goes to every process of the terminal's group, and would stop the
  engine under posts that are still being drained.
- Killed with its parent: where the main process is killed, the fork server ends, and the engine with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1
_SERVER_PID = os.getpid()


def _die_with_server() -> None:
    """In a process just forked off the server: ask the kernel for SIGKILL when the server ends."""
    if os.getppid() != _SERVER_PID:
        return  # a worker of the engine's, which looks after its own
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


with contextlib.suppress(OSError):
    os.setsid()
os.register_at_fork(after_in_child=_die_with_server)
