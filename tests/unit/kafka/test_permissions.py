"""Permissions are asked for at the start; brokers that take a connection and say nothing do not end the program."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from stream_guard.kafka import permissions
from stream_guard.settings import KafkaSettings
from tests.hang import HANG_S

if TYPE_CHECKING:
    import pytest

SETTINGS = KafkaSettings(bootstrap_servers="mute:1,second:2")


async def test_what_no_broker_says_is_taken_as_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(permissions, "create_conn", never)
    monkeypatch.setattr(permissions, "_TIMEOUT_S", 0.02)
    async with asyncio.timeout(HANG_S):
        assert await permissions.forbidden_topics(SETTINGS, ["posts"]) == []
        await permissions.require_permissions(
            SETTINGS, read=["posts"], written=["verdicts"], transactional_id=None
        )


async def test_a_broker_that_says_nothing_leaves_the_question_to_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    denied = {"topics": [{"topic": "posts", "error_code": 29}]}

    async def send(_request: object) -> object:
        return SimpleNamespace(to_object=lambda: denied)

    async def connect(host: str, *_: object, **__: object) -> Any:  # noqa: ANN401 - a double
        if host == "mute":
            await asyncio.Event().wait()
        return SimpleNamespace(send=send, close=lambda: None)

    monkeypatch.setattr(permissions, "create_conn", connect)
    monkeypatch.setattr(permissions, "_TIMEOUT_S", 0.1)
    async with asyncio.timeout(HANG_S):
        assert await permissions.forbidden_topics(SETTINGS, ["posts"]) == ["posts"]
