"""Imported by the fork server alone, first: puts it, and so the engine, into a session of its own.

Ctrl-C in a terminal goes to every process of the terminal's group, and would stop the engine under posts that are
still being drained. What it must never do: be imported in the main process; its import has that effect.
"""

from __future__ import annotations

import contextlib
import os

from stream_guard.judging.engine.arguments import quiet_vllm

with contextlib.suppress(OSError):
    os.setsid()
quiet_vllm()
