"""A client's stop ends by its deadline, and its own cancellation is not the caller's."""

from __future__ import annotations

import asyncio

import pytest

from stream_guard.core.stopping import stop_within


async def test_a_clean_stop_has_no_error() -> None:
    assert await stop_within(asyncio.sleep(0), 60) is None


async def test_a_cancelled_part_of_the_client_does_not_cancel_the_caller() -> None:
    async def stop() -> None:
        part = asyncio.create_task(asyncio.sleep(60))
        await asyncio.sleep(0)
        part.cancel()
        await part

    assert isinstance(await stop_within(stop(), 60), asyncio.CancelledError)


async def test_an_error_is_returned() -> None:
    async def stop() -> None:
        raise OSError

    assert isinstance(await stop_within(stop(), 60), OSError)


async def test_a_stop_that_hangs_ends_by_its_deadline() -> None:
    assert isinstance(await stop_within(asyncio.Event().wait(), 0.01), TimeoutError)


async def test_the_caller_s_cancellation_reaches_the_stop() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def stop() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    caller = asyncio.create_task(stop_within(stop(), 60))
    await begun.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    await ended.wait()
