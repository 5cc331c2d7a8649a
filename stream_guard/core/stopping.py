"""Stops a client within a deadline, whatever its own stop does."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine


async def stop_within(
    stopping: Coroutine[Any, Any, object], timeout_s: float
) -> BaseException | None:
    """Run a client's stop in a task of its own; return the error with which it ended.

    aiokafka's consumer awaits fetches that it has cancelled. A fetch that waits after an error then ends the stop with
    ``CancelledError``. In the caller's own task that would look like a cancellation of the caller.

    Returns:
        None after a clean stop; ``TimeoutError`` if it took longer than ``timeout_s``; otherwise its error.
    """
    task = asyncio.ensure_future(stopping)
    try:
        await asyncio.wait([task], timeout=timeout_s)
    finally:
        task.cancel()
    if not task.done():
        return TimeoutError(f"no stop within {timeout_s:g} s")
    return asyncio.CancelledError() if task.cancelled() else task.exception()
