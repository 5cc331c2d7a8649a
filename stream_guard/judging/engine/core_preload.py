"""Puts the fork server, and so the engine, into a session of its own. The fork server alone imports it, first.

Ctrl-C in a terminal reaches every process of the terminal's group. It would stop the engine while posts are still being
drained. Do not import it in the main process: the import has this effect.
"""

from __future__ import annotations

import contextlib
import os

from stream_guard.judging.engine.arguments import quiet_vllm

with contextlib.suppress(OSError):
    os.setsid()
quiet_vllm()
