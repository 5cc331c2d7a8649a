"""Finds out what the broker's access control lists forbid us, before the service needs it.

Kafka hides a topic from a user who may not describe it. To us it looks like a topic that does not exist.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final

from aiokafka.conn import create_conn
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    KafkaError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)
from aiokafka.protocol.coordination import FindCoordinatorRequest
from aiokafka.protocol.metadata import MetadataRequest

from stream_guard.kafka.connection_failure import split_address
from stream_guard.kafka.security import client_identity, connection_options

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from stream_guard.settings import KafkaSettings

__all__ = ["forbidden_topics", "may_join_group", "may_use_transactions", "principal"]

_TIMEOUT_S: Final = 10.0
_GROUP: Final = 0
_TRANSACTION: Final = 1


def principal(settings: KafkaSettings) -> str:
    """Return our user as kafka-acls writes it; a certificate's user is the subject that it holds."""
    return f"User:{settings.security.username or 'NAME'}"


async def forbidden_topics(settings: KafkaSettings, names: Iterable[str]) -> list[str]:
    """Return those topics that we may not describe; empty where the broker does not answer."""
    wanted = sorted(set(names))
    async with _connected(settings) as connection:
        if connection is None or not wanted:
            return []
        # Without auto-creation: a question must not make a topic.
        answer = await connection.send(MetadataRequest(wanted, allow_auto_topic_creation=False))
        return [
            topic["topic"]
            for topic in answer.to_object()["topics"]
            if topic["error_code"] == TopicAuthorizationFailedError.errno
        ]


async def may_join_group(settings: KafkaSettings) -> bool:
    """Return whether we may read positions of the consumer group; True where the broker does not answer."""
    code = await _coordinator_error(settings, settings.group_id, _GROUP)
    return code != int(GroupAuthorizationFailedError.errno)


async def may_use_transactions(settings: KafkaSettings, transactional_id: str) -> bool:
    """Return whether we may write in transactions of this id; True where the broker does not answer."""
    code = await _coordinator_error(settings, transactional_id, _TRANSACTION)
    return code != int(TransactionalIdAuthorizationFailed.errno)


async def _coordinator_error(settings: KafkaSettings, key: str, kind: int) -> int:
    async with _connected(settings) as connection:
        if connection is None:
            return 0
        answer = await connection.send(FindCoordinatorRequest(key, kind))
        return int(answer.error_code)


@contextlib.asynccontextmanager
async def _connected(settings: KafkaSettings) -> AsyncIterator[Any]:
    """Yield a connection to the first bootstrap broker that answers, or None."""
    options = client_identity(connection_options(settings))
    async with asyncio.timeout(_TIMEOUT_S):
        connection = None
        for address in settings.bootstrap_servers.split(","):
            with contextlib.suppress(KafkaError, OSError):
                connection = await create_conn(*split_address(address), **options)
                break
        try:
            yield connection
        finally:
            if connection is not None:
                connection.close()
