"""Lets a stop end a start that waits: for brokers, for permissions, for a group or for the end of the decisions."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

__all__ = ["Start", "StoppedError"]

_T = TypeVar("_T")


class StoppedError(Exception):
    """A stop was asked for before the service had started. No record was taken, so nothing is to be drained."""


class Start:
    """The steps of a start.

    Args:
        stop: set once a stop is asked for.
    """

    def __init__(self, stop: asyncio.Event) -> None:
        self._stop = stop

    async def step(self, step: Coroutine[Any, Any, _T]) -> _T:
        """Return the result of a step, which waits for something outside; a stop cancels it.

        Raises:
            StoppedError: a stop was asked for before the step was done.
            Exception: from the step.
        """
        running = asyncio.ensure_future(step)
        asked = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait([running, asked], return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                raise StoppedError
            return running.result()
        finally:
            asked.cancel()
            running.cancel()
            await asyncio.gather(running, asked, return_exceptions=True)
