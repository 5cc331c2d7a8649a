"""A function that never returns costs its caller the deadline, and nothing else."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from stream_guard.core.errors import ForeignCallError
from stream_guard.core.foreign_calls import call_with_deadline
from tests.hang import HANG_S


async def test_what_it_returns_and_raises_is_handed_on() -> None:
    assert await call_with_deadline("a", HANG_S, lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        await call_with_deadline("a", HANG_S, lambda: 1 // 0)


async def test_a_time_out_of_its_own_is_not_taken_for_the_deadline() -> None:
    def fails() -> None:
        message = "its own"
        raise TimeoutError(message)

    with pytest.raises(TimeoutError, match="its own"):
        await call_with_deadline("b", HANG_S, fails)


async def test_after_the_deadline_it_is_named_and_not_called_again_until_it_ends() -> None:
    answers, calls = threading.Event(), []

    def hangs() -> None:
        calls.append(threading.current_thread())
        answers.wait()

    with pytest.raises(ForeignCallError, match=r"a\.hook: no answer within 0\.01 s"):
        await call_with_deadline("a.hook", 0.01, hangs)
    with pytest.raises(ForeignCallError, match="an earlier call has not returned yet"):
        await call_with_deadline("a.hook", HANG_S, hangs)
    assert await call_with_deadline("another", HANG_S, lambda: 1) == 1
    answers.set()
    await asyncio.to_thread(calls[0].join)
    await call_with_deadline("a.hook", HANG_S, hangs)
    assert len(calls) == 2


async def test_a_call_whose_caller_gave_up_is_not_made_again_either() -> None:
    answers = threading.Event()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await call_with_deadline("b.hook", HANG_S, answers.wait)
    with pytest.raises(ForeignCallError, match="an earlier call has not returned yet"):
        await call_with_deadline("b.hook", HANG_S, answers.wait)
    answers.set()


def test_a_call_that_hangs_does_not_keep_the_process() -> None:
    program = """
import asyncio, threading
from stream_guard.core.errors import ForeignCallError
from stream_guard.core.foreign_calls import call_with_deadline
async def main():
    try:
        await call_with_deadline("x", 0.01, threading.Event().wait)
    except ForeignCallError:
        print("named")
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=HANG_S, check=True
    )
    assert done.stdout == "named\n"


def test_the_exit_guard_ends_a_process_that_a_thread_keeps() -> None:
    program = """
import asyncio, threading
from stream_guard.service.health.exit_guard import end_process_within
async def main():
    asyncio.get_running_loop().run_in_executor(None, threading.Event().wait)
with asyncio.Runner() as runner:
    runner.run(main())
    end_process_within(0.1, 5)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=HANG_S, check=False
    )
    assert done.returncode == 5
    assert "process_did_not_end" in done.stdout + done.stderr
    assert "most recent call first" in done.stderr
