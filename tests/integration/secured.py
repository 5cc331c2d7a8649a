"""A broker with every kind of security, its users' environments, and what people grant and take away there."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from aiokafka.conn import create_conn
from aiokafka.protocol.admin import CreateAclsRequest, DeleteAclsRequest
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    CompactArray,
    CompactBytes,
    CompactString,
    Int8,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)

if TYPE_CHECKING:
    from pathlib import Path

    from stream_guard.testing import Broker

PREFIX: Final = "STREAM_GUARD_KAFKA__SECURITY__"
# Kafka's protocol: kinds of resources, operations, and patterns.
TOPIC: Final = 2
GROUP: Final = 3
TRANSACTIONAL_ID: Final = 5
ALL, READ, WRITE, DESCRIBE = 2, 3, 4, 8
LITERAL, PREFIXED = 3, 4


@dataclass
class Access:
    """Grants and takes away access control lists by the plain listener, whose user may do everything."""

    broker: Broker
    granted: list[tuple[int, str, int, str, int]] = field(default_factory=list)

    async def grant(
        self, user: str, operation: int, kind: int, name: str, *, pattern: int = LITERAL
    ) -> None:
        connection = await create_conn(*self._address())
        try:
            answer = await connection.send(
                CreateAclsRequest(kind, name, pattern, f"User:{user}", "*", operation, 3)
            )
        finally:
            connection.close()
        assert [code for code, _ in answer.creation_responses] == [0]

    async def take_away(self, user: str, operation: int, kind: int, name: str) -> None:
        connection = await create_conn(*self._address())
        try:
            answer = await connection.send(
                DeleteAclsRequest(kind, name, LITERAL, f"User:{user}", "*", operation, 3)
            )
        finally:
            connection.close()
        ((code, _, matching),) = answer.filter_responses
        assert code == 0
        assert len(matching) == 1

    def _address(self) -> tuple[str, int]:
        host, port = self.broker.bootstrap_servers.split(":")
        return host, int(port)


class _AlterResponse(Response):  # type: ignore[misc] # aiokafka ships no types
    API_KEY = 51
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "results",
            CompactArray(
                ("user", CompactString("utf-8")),
                ("error_code", Int16),
                ("error_message", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _AlterRequest(RequestStruct):  # type: ignore[misc]
    """AlterUserScramCredentials (KIP-554)."""

    FLEXIBLE_VERSION = True
    API_KEY = 51
    API_VERSION = 0
    RESPONSE_TYPE = _AlterResponse
    SCHEMA = Schema(
        (
            "deletions",
            CompactArray(
                ("name", CompactString("utf-8")), ("mechanism", Int8), ("tags", TaggedFields)
            ),
        ),
        (
            "upsertions",
            CompactArray(
                ("name", CompactString("utf-8")),
                ("mechanism", Int8),
                ("iterations", Int32),
                ("salt", CompactBytes),
                ("salted_password", CompactBytes),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )
