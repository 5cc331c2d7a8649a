"""Finds out what the broker's access control lists forbid us, before the service needs it.

Kafka hides a topic from a user who may not describe it. To us it looks like a topic that does not exist. Of the others,
a broker says what we may do with a topic (KIP-430). For a group and a transactional id we send a request that changes
nothing: brokers check the permission before they see that its member or producer does not exist.
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
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.group import HeartbeatRequest
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.transaction import EndTxnRequest
from aiokafka.protocol.types import Array, Boolean, Int16, Int32, Schema, String

from stream_guard.core.errors import BrokerError, named
from stream_guard.kafka.connection_failure import split_address
from stream_guard.kafka.security import client_identity, connection_options

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from stream_guard.settings import KafkaSettings

__all__ = ["explain_denial", "forbidden_topics", "principal", "require_permissions"]

_TIMEOUT_S: Final = 10.0
_NOBODY: Final = -1
# org.apache.kafka.common.acl.AclOperation; in the answer each is the bit of its number.
_READ: Final = 3
_WRITE: Final = 4
_DESCRIBE: Final = 8


class _MetadataResponse(Response):  # type: ignore[misc] # aiokafka ships no types
    API_KEY = 3
    API_VERSION = 8
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            Array(
                ("node_id", Int32),
                ("host", String("utf-8")),
                ("port", Int32),
                ("rack", String("utf-8")),
            ),
        ),
        ("cluster_id", String("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            Array(
                ("error_code", Int16),
                ("topic", String("utf-8")),
                ("is_internal", Boolean),
                (
                    "partitions",
                    Array(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", Array(Int32)),
                        ("isr", Array(Int32)),
                        ("offline_replicas", Array(Int32)),
                    ),
                ),
                ("authorized_operations", Int32),
            ),
        ),
        ("cluster_authorized_operations", Int32),
    )


class _MetadataRequest(RequestStruct):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 8
    RESPONSE_TYPE = _MetadataResponse
    SCHEMA = Schema(
        ("topics", Array(String("utf-8"))),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
    )


class _TopicPermissions(Request[_MetadataRequest]):  # type: ignore[misc]
    """Metadata with what we may do with each topic; brokers since Kafka 2.3."""

    API_KEY = 3

    def __init__(self, topics: Iterable[str]) -> None:
        self._topics = list(topics)

    def build(self, request_struct_class: Any) -> Any:  # noqa: ANN401 - as aiokafka declares it
        # Without auto-creation: a question must not make a topic.
        return request_struct_class(self._topics, False, False, True)  # noqa: FBT003


def principal(settings: KafkaSettings) -> str:
    """Return our user as kafka-acls writes it; a certificate's user is the subject that it holds."""
    return f"User:{settings.security.username or 'NAME'}"


async def forbidden_topics(settings: KafkaSettings, names: Iterable[str]) -> list[str]:
    """Return those topics that we may not describe; empty where the broker does not answer."""
    wanted = sorted(set(names))
    found: list[str] = []
    async with _connected(settings) as connection:
        if connection is not None and wanted:
            # Without auto-creation: a question must not make a topic.
            answer = await connection.send(MetadataRequest(wanted, allow_auto_topic_creation=False))
            found = [
                topic["topic"]
                for topic in answer.to_object()["topics"]
                if topic["error_code"] == TopicAuthorizationFailedError.errno
            ]
    return found


async def require_permissions(
    settings: KafkaSettings,
    *,
    read: Iterable[str],
    written: Iterable[str],
    transactional_id: str | None,
) -> None:
    """Check that we may read, write, join the group and, if an id is given, write in transactions.

    What a broker does not say is taken as allowed.

    Args:
        settings: the broker and the group.
        read: topics that we read.
        written: topics that we write.
        transactional_id: one such as we use; None without transactions.

    Raises:
        BrokerError: something is forbidden; the message has the command that grants it.
    """
    grant = f"kafka-acls.sh --add --allow-principal {principal(settings)}"
    async with _connected(settings) as connection:
        if connection is None:
            return
        for names, bit, word in (
            (read, _READ, "Read"),
            (written, _WRITE, "Write"),
        ):
            denied = await _without(connection, names, bit)
            if denied:
                message = (
                    f"access control lists forbid {word} on topics: {', '.join(denied)}; grant it, for example: "
                    f"{grant} --operation {word} --topic {denied[0]}"
                )
                raise BrokerError(message)
        group = settings.group_id
        answer = await connection.send(HeartbeatRequest(group, _NOBODY, ""))
        if answer.error_code == GroupAuthorizationFailedError.errno:
            message = (
                f"access control lists forbid the consumer group {group!r} (kafka.group_id); grant it, for "
                f"example: {grant} --operation Read --group {group}"
            )
            raise BrokerError(message)
        if transactional_id is None:
            return
        ending = EndTxnRequest(transactional_id, _NOBODY, _NOBODY, transaction_result=False)
        answer = await connection.send(ending)
        if answer.error_code == TransactionalIdAuthorizationFailed.errno:
            message = (
                f"access control lists forbid transactional ids such as {transactional_id!r} (delivery.mode "
                f"exactly_once); grant their prefix, for example: {grant} --operation Write --operation Describe "
                f"--transactional-id {group}/ --resource-pattern-type prefixed"
            )
            raise BrokerError(message)


def explain_denial(error: BaseException, *, topic: str = "", group: str = "") -> str:
    """Return an error of a running client with its remedy, where access control lists are its cause."""
    if isinstance(error, TopicAuthorizationFailedError):
        # aiokafka gives a name, or a set of names.
        told = error.args[0] if error.args else ()
        names = topic or (told if isinstance(told, str) else ", ".join(sorted(told)))
        return f"access control lists forbid topic {names} ({named(error)}); grant Read on inputs, Write on outputs"
    if isinstance(error, GroupAuthorizationFailedError):
        return f"access control lists forbid the consumer group {group!r} ({named(error)}); grant Read on it"
    if isinstance(error, TransactionalIdAuthorizationFailed):
        return (
            f"access control lists forbid the transactional id ({named(error)}); grant Write and Describe on the "
            f"prefix {group}/"
        )
    return named(error)


async def _without(connection: Any, names: Iterable[str], bit: int) -> list[str]:  # noqa: ANN401 - of aiokafka
    """Return the topics for which the broker says that we lack an operation."""
    wanted = sorted(set(names))
    if not wanted:
        return []
    try:
        answer = await connection.send(_TopicPermissions(wanted))
    except NotImplementedError:  # a broker older than Kafka 2.3
        return []
    return [
        topic["topic"]
        for topic in answer.to_object()["topics"]
        # A broker that shows a topic lets us describe it. Without that bit it does not know.
        if topic["authorized_operations"] > 0
        and topic["authorized_operations"] & 1 << _DESCRIBE
        and not topic["authorized_operations"] & 1 << bit
    ]


@contextlib.asynccontextmanager
async def _connected(settings: KafkaSettings) -> AsyncIterator[Any]:
    """Yield a connection to the first bootstrap broker that answers, or None; a broker that is lost ends the block."""
    options = client_identity(connection_options(settings))
    connection = None
    addresses = settings.bootstrap_servers.split(",")
    for address in addresses:
        # A broker that takes the connection and says nothing must leave time for the next one.
        with contextlib.suppress(KafkaError, OSError, TimeoutError):
            async with asyncio.timeout(_TIMEOUT_S / len(addresses)):
                connection = await create_conn(*split_address(address), **options)
            break
    with contextlib.suppress(KafkaError, OSError, TimeoutError):
        async with asyncio.timeout(_TIMEOUT_S):
            try:
                yield connection
            finally:
                if connection is not None:
                    connection.close()


async def explain_missing(settings: KafkaSettings, missing: Sequence[str]) -> str:
    """Return why topics cannot be used: access control lists hide them, or they do not exist."""
    forbidden = await forbidden_topics(settings, missing)
    if forbidden:
        return (
            f"access control lists on {settings.bootstrap_servers} hide topics: {', '.join(forbidden)}; grant Describe "
            "with Read (input) or Write (output), for example: kafka-acls.sh --add --allow-principal "
            f"{principal(settings)} --operation Read --operation Describe --topic {forbidden[0]} --bootstrap-server "
            f"{settings.bootstrap_servers}"
        )
    return (
        f"topics that do not exist on {settings.bootstrap_servers}: {', '.join(missing)}; create them, for "
        f"example: kafka-topics.sh --create --topic {missing[0]} --partitions 12 --bootstrap-server "
        f"{settings.bootstrap_servers}"
    )
