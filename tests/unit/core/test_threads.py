"""A blocking step runs beside the event loop, and nobody goes on before its thread has ended."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING

import pytest

from stream_guard.core.threads import entered_in_thread, run_to_its_end

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Step:
    """A step that waits in its thread until it is let go."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.begun = asyncio.Event()
        self.go_on = threading.Event()
        self.ended = False

    def __call__(self) -> int:
        self.loop.call_soon_threadsafe(self.begun.set)
        assert self.go_on.wait(30)
        self.ended = True
        return 7


async def cancel_within(task: asyncio.Task[object], step: Step) -> None:
    """Cancel a task twice while its step runs, and end the step after that."""
    await step.begun.wait()
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert not task.done()
    step.go_on.set()
    await asyncio.wait({task})


async def test_the_result_comes_back() -> None:
    step = Step()
    step.go_on.set()
    assert await run_to_its_end(step) == 7


async def test_an_error_comes_back() -> None:
    def fail() -> None:
        raise ValueError("full")

    with pytest.raises(ValueError, match="full"):
        await run_to_its_end(fail)


async def test_a_cancelled_caller_waits_for_the_end() -> None:
    step = Step()
    task: asyncio.Task[object] = asyncio.create_task(run_to_its_end(step))
    await cancel_within(task, step)
    assert step.ended
    assert task.cancelled()


@contextlib.contextmanager
def manager(log: list[str], enter: Callable[[], object]) -> Iterator[int]:
    enter()
    log.append("entered")
    try:
        yield threading.get_ident()
    except OSError as error:
        raise LookupError("named") from error
    finally:
        log.append("left")


async def test_a_manager_is_entered_and_left_beside_the_loop() -> None:
    log: list[str] = []
    async with entered_in_thread(manager(log, lambda: None)) as thread:
        assert thread != threading.get_ident()
        assert log == ["entered"]
    assert log == ["entered", "left"]


async def test_a_manager_sees_what_is_raised_within() -> None:
    log: list[str] = []
    with pytest.raises(LookupError, match="named"):
        async with entered_in_thread(manager(log, lambda: None)):
            raise OSError
    assert log == ["entered", "left"]


async def test_a_manager_may_swallow_what_is_raised_within() -> None:
    async with entered_in_thread(contextlib.suppress(OSError)):
        raise OSError


async def test_a_caller_that_is_cancelled_while_it_enters_leaves_again() -> None:
    log: list[str] = []
    step = Step()

    async def use() -> None:
        async with entered_in_thread(manager(log, step)):
            log.append("inside")

    task: asyncio.Task[object] = asyncio.create_task(use())
    await cancel_within(task, step)
    assert log == ["entered", "left"]
    assert task.cancelled()
