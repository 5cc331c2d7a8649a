"""A token hook that hangs or raises costs a deadline, has an error of its own, and shows no secret."""

from __future__ import annotations

import asyncio
import threading
from typing import NoReturn

import pytest
from aiokafka.errors import KafkaConnectionError

from stream_guard.core.errors import BrokerError
from stream_guard.kafka.security import HookTokenProvider
from tests.hang import HANG_S

HOOK = r"kafka\.security\.oauth_token_hook"


async def later() -> str:
    await asyncio.sleep(0)
    return "token"


async def never() -> str:
    await asyncio.Event().wait()
    return ""


def fails() -> NoReturn:
    message = "password=hunter2"
    raise ValueError(message)


async def fails_later() -> NoReturn:
    fails()


async def test_a_function_of_either_kind_gives_its_token() -> None:
    assert await HookTokenProvider(lambda: "token", HANG_S).token() == "token"
    assert await HookTokenProvider(later, HANG_S).token() == "token"


@pytest.mark.parametrize("hook", [fails, fails_later])
async def test_what_it_raises_is_named_by_its_type_alone(hook: object) -> None:
    assert callable(hook)
    with pytest.raises(BrokerError, match=f"{HOOK}: the function raised ValueError") as caught:
        await HookTokenProvider(hook, HANG_S).token()
    assert "hunter2" not in str(caught.value)
    # aiokafka tries such a connection again; any other error would end its task.
    assert isinstance(caught.value, KafkaConnectionError)


async def test_a_coroutine_that_hangs_is_named() -> None:
    with pytest.raises(BrokerError, match=rf"{HOOK}: no token within 0\.01 s"):
        await HookTokenProvider(never, 0.01).token()


async def test_a_function_that_hangs_is_named_and_not_called_again() -> None:
    answers, calls = threading.Event(), []

    def hangs() -> str:
        calls.append(1)
        answers.wait()
        return "token"

    provider = HookTokenProvider(hangs, 0.01)
    try:
        with pytest.raises(BrokerError, match=rf"{HOOK}: no answer within 0\.01 s"):
            await provider.token()
        with pytest.raises(BrokerError, match="an earlier call has not returned yet"):
            await provider.token()
        assert len(calls) == 1
    finally:
        answers.set()
