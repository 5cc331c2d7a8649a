"""Prepares the fork server, and so the engine, before it imports vLLM. The fork server alone imports it, first.

It gets a session of its own. Ctrl-C in a terminal reaches every process of the terminal's group. It would stop the
engine while posts are still being drained. Do not import this module in the main process: the import has this effect.
"""

from __future__ import annotations

import contextlib
import os
import threading

from tqdm import tqdm

from stream_guard.judging.engine.arguments import quiet_vllm

with contextlib.suppress(OSError):
    os.setsid()
quiet_vllm()
# vLLM shows a bar while it loads weights, and each bar makes a lock for several processes, unless there is one already.
# An engine that is killed would leave it behind, and Python's resource tracker would say so on stderr.
tqdm.set_lock(threading.RLock())
