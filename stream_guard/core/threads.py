"""Runs blocking steps in a thread that the caller waits for, also where the caller is cancelled.

``asyncio.to_thread`` alone returns at a cancellation while its thread goes on. Then a lock may be released, or a folder
removed, under a step that still runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractContextManager

__all__ = ["entered_in_thread", "run_to_its_end"]

_T = TypeVar("_T")


async def run_to_its_end(function: Callable[[], _T]) -> _T:
    """Return what a blocking function returns; it runs in a thread.

    Raises:
        asyncio.CancelledError: the caller was cancelled; the function has ended by then.
        Exception: what the function raises.
    """
    work = _start(function)
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await _end(work)
        raise


@contextlib.asynccontextmanager
async def entered_in_thread(manager: AbstractContextManager[_T]) -> AsyncIterator[_T]:
    """Enter and leave a blocking context manager in threads, and yield what it yields.

    Raises:
        Exception: what the manager raises.
    """
    entering = _start(manager.__enter__)
    try:
        value = await asyncio.shield(entering)
    except asyncio.CancelledError:
        if await _end(entering) is None:
            await run_to_its_end(lambda: manager.__exit__(None, None, None))
        raise
    try:
        yield value
    except BaseException as raised:
        error = raised  # a lambda outlives the name of an except clause
        if not await run_to_its_end(
            lambda: manager.__exit__(type(error), error, error.__traceback__)
        ):
            raise
    else:
        await run_to_its_end(lambda: manager.__exit__(None, None, None))


def _start(function: Callable[[], _T]) -> asyncio.Future[_T]:
    # No task: a loop that ends cancels all tasks, and would forget the thread.
    context = contextvars.copy_context()
    return asyncio.get_running_loop().run_in_executor(None, context.run, function)


async def _end(work: asyncio.Future[_T]) -> BaseException | None:
    """Wait for the end of a step, through further cancellations, and return what it raised."""
    while not work.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({work})
    return work.exception()
