"""Closes admin clients within a deadline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from stream_guard.core.stopping import stop_within

if TYPE_CHECKING:
    from aiokafka.admin import AIOKafkaAdminClient

_CLOSE_S: Final = 2.0


async def close_admin(admin: AIOKafkaAdminClient) -> None:
    """Close an admin client; never raises.

    asyncio waits 30 s for the other side of a TLS connection to close it, and a broker that is away never does.
    """
    await stop_within(admin.close(), _CLOSE_S)
