"""The user of each group's members: its certificate, and the permissions that the guide grants."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Final, NamedTuple

from tests.integration.secured import (
    ARCHIVE,
    GROUP,
    LITERAL,
    PREFIXED,
    READ,
    TOPIC,
    TRANSACTIONAL_ID,
    WRITE,
    Access,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from stream_guard.testing import Broker

LISTENER: Final = "PROXIED"
"""The listener with TLS and client certificates, which the proxies stand before."""


class Grant(NamedTuple):
    """One permission, as Kafka's protocol numbers it, and a word for people."""

    name: str
    operation: int
    kind: int
    resource: str
    pattern: int


class Guarded:
    """One user of the secured listener.

    Args:
        broker: the cluster.
        name: of the user.
        folder: for its certificate and key.
    """

    def __init__(self, broker: Broker, name: str, folder: Path) -> None:
        assert broker.secured is not None, "a soak's brokers are secured"
        self._access = Access(broker)
        self._secured = broker.secured
        self._name = name
        self._folder = folder
        self._grants: list[Grant] = []
        folder.mkdir(parents=True, exist_ok=True)

    def environment(self) -> dict[str, str]:
        """Return the variables by which a member connects as this user."""
        settings = {
            "BOOTSTRAP_SERVERS": self._secured.servers(LISTENER),
            "SECURITY__PROTOCOL": "SSL",
            "SECURITY__SSL_CAFILE": str(self._secured.ca_file),
            "SECURITY__SSL_CERTFILE": str(self._folder / "tls.crt"),
            "SECURITY__SSL_KEYFILE": str(self._folder / "tls.key"),
        }
        return {f"STREAM_GUARD_KAFKA__{name}": value for name, value in settings.items()}

    def write_certificate(self, *, life_s: float | None = None) -> None:
        """Write a new certificate and its key; each file is replaced at once.

        Args:
            life_s: until it expires; 30 days if unset.
        """
        until = None if life_s is None else dt.datetime.now(dt.UTC) + dt.timedelta(seconds=life_s)
        made = self._secured.authority.issue(self._name, valid_until=until)
        for source, name in ((made.key_file, "tls.key"), (made.certificate_file, "tls.crt")):
            partial = self._folder / f".{name}"
            partial.write_bytes(source.read_bytes())
            partial.replace(self._folder / name)

    async def grant_all(self, environment: Mapping[str, str]) -> None:
        """Grant what the guide grants, for the names of an environment."""
        await self._access.grant_all(self._name, environment)
        for setting in ("BREAKER_TOPIC", "DECISION_TOPIC"):
            topic = environment[f"STREAM_GUARD_KAFKA__{setting}"]
            for operation in (READ, WRITE):
                await self._access.grant(self._name, operation, TOPIC, topic, pattern=LITERAL)
        group = environment["STREAM_GUARD_KAFKA__GROUP_ID"]
        verdicts = environment["STREAM_GUARD_KAFKA__VERDICT_TOPIC"]
        posts = environment["STREAM_GUARD_KAFKA__TOPICS"].strip('["]')
        self._grants = [
            Grant(f"Write on {verdicts}", WRITE, TOPIC, verdicts, LITERAL),
            Grant(f"Read on {posts}", READ, TOPIC, posts, LITERAL),
            Grant(f"Read on the group {group}", READ, GROUP, group, LITERAL),
        ]
        if environment["STREAM_GUARD_DELIVERY__MODE"] == "exactly_once":
            self._grants.append(
                Grant(
                    f"Write on transactions of {group}",
                    WRITE,
                    TRANSACTIONAL_ID,
                    f"{group}/",
                    PREFIXED,
                )
            )

    async def take_away(self, draw: float) -> Grant:
        """Take one permission away, by a draw; return it."""
        grant = self._grants[int(draw * len(self._grants))]
        await self._access.take_away(
            self._name, grant.operation, grant.kind, grant.resource, pattern=grant.pattern
        )
        return grant

    async def give_back(self, grant: Grant) -> None:
        """Grant it again."""
        await self._access.grant(
            self._name, grant.operation, grant.kind, grant.resource, pattern=grant.pattern
        )


def archive() -> tuple[str, dict[str, str]]:
    """Return the topic of the policies' archive, which users may not create, and its configuration."""
    return ARCHIVE, {"cleanup.policy": "compact"}
