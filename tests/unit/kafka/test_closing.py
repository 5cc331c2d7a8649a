"""An admin client is closed within a deadline, whatever the brokers do."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiokafka.errors import KafkaConnectionError

from stream_guard.kafka import closing

if TYPE_CHECKING:
    import pytest


class Admin:
    """Ends with an error, or does not end."""

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error
        self.given_up = False

    async def close(self) -> None:
        if self._error is not None:
            raise self._error
        try:
            await asyncio.Event().wait()
        finally:
            self.given_up = True


async def test_a_connection_that_nobody_closes_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closing, "_CLOSE_S", 0.01)
    admin = Admin()
    await closing.close_admin(admin)
    await asyncio.sleep(0)
    assert admin.given_up


async def test_an_error_while_closing_is_no_error() -> None:
    await closing.close_admin(Admin(KafkaConnectionError("gone")))
