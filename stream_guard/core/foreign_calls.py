"""Calls functions that may never return, with a deadline, from the event loop.

``asyncio.to_thread`` uses threads that the process waits for at its end, so one call that hangs would keep it. Each
call here has a thread of its own, which does not. A call that passed its deadline goes on in its thread; until it
ends, another call of the same name fails at once, so that threads do not pile up.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from typing import TYPE_CHECKING, Any, Final, TypeVar

from stream_guard.core.errors import ForeignCallError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["call_with_deadline"]

_T = TypeVar("_T")
_late: Final[dict[str, threading.Thread]] = {}
"""The calls that were given up on, by name."""


async def call_with_deadline(name: str, timeout_s: float, function: Callable[[], _T]) -> _T:
    """Return what a blocking function returns.

    Args:
        name: what is called, for people; a setting where there is one.
        timeout_s: the deadline, in s.
        function: the call.

    Raises:
        ForeignCallError: it did not return in time, or an earlier one has not returned yet.
        Exception: what the function raises.
    """
    earlier = _late.get(name)
    if earlier is not None and earlier.is_alive():
        message = f"{name}: an earlier call has not returned yet; find out what it waits for"
        raise ForeignCallError(message)
    _late.pop(name, None)
    loop = asyncio.get_running_loop()
    done: asyncio.Future[_T] = loop.create_future()

    def run() -> None:
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001 - handed to the caller
            _hand_over(loop, done, done.set_exception, error)
        else:
            _hand_over(loop, done, done.set_result, result)

    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(run,), name=name, daemon=True)
    thread.start()
    try:
        async with asyncio.timeout(timeout_s):
            return await done
    except TimeoutError:
        if done.done() and not done.cancelled():
            raise  # the function's own
        message = f"{name}: no answer within {timeout_s:g} s; find out what it waits for"
        raise ForeignCallError(message) from None
    finally:
        # Also where the caller was cancelled, by a deadline of its own.
        if not done.done() or done.cancelled():
            _late[name] = thread


def _hand_over(
    loop: asyncio.AbstractEventLoop,
    done: asyncio.Future[Any],
    settle: Callable[[Any], None],
    value: object,
) -> None:
    def settle_once() -> None:
        if not done.done():
            settle(value)

    # The loop is closed where the process ends meanwhile.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(settle_once)
