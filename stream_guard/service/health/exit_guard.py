"""Ends the process although a thread does not: Python waits for its threads for as long as they run."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

import structlog

from stream_guard.service.health.stall import dump_threads

if TYPE_CHECKING:
    from collections.abc import Callable

_log = structlog.get_logger(__name__)


def end_process_within(
    timeout_s: float, exit_code: int, end: Callable[[int], None] = os._exit
) -> None:
    """End the process with this code, if it has not ended by itself in time.

    Args:
        timeout_s: how long threads may take to end, in s.
        exit_code: of the process.
        end: called with the exit code after every thread's stack is on stderr.
    """

    def wait() -> None:
        time.sleep(timeout_s)
        dump_threads()
        _log.critical(
            "process_did_not_end",
            waited_s=timeout_s,
            remedy="see the stacks above; delivery.stop_timeout_s is the limit",
        )
        end(exit_code)

    threading.Thread(target=wait, name="exit guard", daemon=True).start()
