"""A broker with every kind of security, its users' environments, and what people grant and take away there."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

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

from tests.helm.chart import render_with

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from stream_guard.testing import Broker
    from stream_guard.testing.broker import Secured

# Kafka's protocol: kinds of resources, operations, and patterns.
TOPIC: Final = 2
GROUP: Final = 3
TRANSACTIONAL_ID: Final = 5
ALL, READ, WRITE, DESCRIBE = 2, 3, 4, 8
LITERAL, PREFIXED = 3, 4
ARCHIVE: Final = "stream-guard.policies"
_ALLOW: Final = 3
_SCRAM_SHA_512: Final = 2
_ITERATIONS: Final = 4_096
KINDS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "mutual TLS")


@dataclass
class Secrets:
    """The Secrets of a cluster, as files in a test's folder; ``text`` is everything that no output may hold."""

    folder: Path
    text: list[str] = field(default_factory=list)

    def write(self, secret: str, **data: str | bytes) -> Path:
        """Write a Secret's keys; a name's last underscore is a dot, as in ``tls.crt``."""
        folder = self.folder / secret
        folder.mkdir(exist_ok=True)
        for name, value in data.items():
            content = value.encode() if isinstance(value, str) else value
            # Replaced at once, as a kubelet does: no reader sees half a file.
            partial = folder / f".{name}"
            partial.write_bytes(content)
            partial.replace(folder / name.replace("_", "."))
            self.remember(content.decode())
        return folder

    def remember(self, secret: str) -> None:
        """Note a secret: its first line of a key's own text, or all of it."""
        lines = secret.splitlines()
        if "PRIVATE KEY" in secret:
            self.text.append(lines[1])
        elif len(lines) == 1:
            self.text.append(secret)


def chart_environment(values: Mapping[str, Any], secrets: Secrets) -> dict[str, str]:
    """Return the security variables of the container that the chart renders, with its mounts in the test's folder."""
    rendered = render_with({"kafka.security": dict(values)})
    folders = {}
    for mount in rendered.container["volumeMounts"]:
        secret = rendered.volumes[mount["name"]].get("secret")
        if secret is not None:
            folders[mount["mountPath"]] = str(secrets.folder / secret["secretName"])
    found = {}
    for variable in rendered.container["env"]:
        if not variable["name"].startswith("STREAM_GUARD_KAFKA__SECURITY__"):
            continue
        if "valueFrom" in variable:
            at = variable["valueFrom"]["secretKeyRef"]
            value = (secrets.folder / at["name"] / at["key"]).read_text("utf-8")
        else:
            value = variable["value"]
        for path, folder in folders.items():
            if value.startswith(f"{path}/"):
                value = folder + value.removeprefix(path)
        found[variable["name"]] = value
    return found


@dataclass
class User:
    """How one user of a secured broker connects.

    Attributes:
        bootstrap: of the listener for this kind.
        values: of the chart, below ``kafka.security``.
        secrets: the files that they name.
    """

    bootstrap: str
    values: dict[str, Any]
    secrets: Secrets

    def environment(self) -> dict[str, str]:
        return chart_environment(self.values, self.secrets)


def connect(secured: Secured, kind: str, user: str, password: str, folder: Path) -> User:
    """Return how a user connects by one kind of security, with everything that its Secrets need."""
    secrets = Secrets(folder)
    secrets.write("kafka-ca", ca_crt=secured.ca_file.read_bytes())
    values: dict[str, Any] = {"protocol": "SASL_SSL", "caSecret": {"name": "kafka-ca"}}
    if kind == "mutual TLS":
        certificate = secured.certificate(user)
        secrets.write(
            "kafka-client",
            tls_crt=certificate.certificate_file.read_bytes(),
            tls_key=certificate.key_file.read_bytes(),
        )
        values |= {"protocol": "SSL", "clientSecret": {"name": "kafka-client"}}
        return User(secured.servers("MTLS"), values, secrets)
    values["saslMechanism"] = kind
    if kind == "OAUTHBEARER":
        folder = secrets.write("kafka-token", token=secured.token(user))
        values["oauthTokenFile"] = str(folder / "token")
    else:
        secrets.write("kafka-user", username=user, password=password)
        secrets.text.remove(user)
        values["saslSecret"] = {"name": "kafka-user"}
    return User(secured.servers("SASL"), values, secrets)


@dataclass
class Access:
    """Grants and takes away by the plain listener, whose user may do everything."""

    broker: Broker

    async def grant(
        self, user: str, operation: int, kind: int, name: str, *, pattern: int = LITERAL
    ) -> None:
        answer = await self.send(
            CreateAclsRequest(kind, name, pattern, f"User:{user}", "*", operation, _ALLOW)
        )
        assert [code for code, _ in answer.creation_responses] == [0]

    async def take_away(self, user: str, operation: int, kind: int, name: str) -> None:
        answer = await self.send(
            DeleteAclsRequest(kind, name, LITERAL, f"User:{user}", "*", operation, _ALLOW)
        )
        ((code, _, matching),) = answer.filter_responses
        assert code == 0
        assert len(matching) == 1

    async def grant_all(self, user: str, environment: Mapping[str, str]) -> None:
        """Grant what a deployment needs in both delivery modes, and no more."""
        posts = environment["STREAM_GUARD_KAFKA__TOPICS"].strip('["]')
        group = environment["STREAM_GUARD_KAFKA__GROUP_ID"]
        await self.grant(user, READ, TOPIC, posts)
        for name in ("VERDICT_TOPIC", "DEAD_LETTER_TOPIC"):
            await self.grant(user, WRITE, TOPIC, environment[f"STREAM_GUARD_KAFKA__{name}"])
        await self.grant(user, WRITE, TOPIC, ARCHIVE)
        await self.grant(user, READ, GROUP, group)
        for operation in (WRITE, DESCRIBE):
            await self.grant(user, operation, TRANSACTIONAL_ID, f"{group}/", pattern=PREFIXED)

    async def set_password(self, user: str, password: str) -> None:
        """Change a user's password for SCRAM-SHA-512 (RFC 5802: the salted password)."""
        salt = os.urandom(16)
        salted = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, _ITERATIONS)
        answer = await self.send(_AlterScram(user, salt, salted))
        assert [result[1] for result in answer.results] == [0]

    async def send(self, request: Any) -> Any:  # noqa: ANN401 - aiokafka ships no types
        host, port = self.broker.bootstrap_servers.split(":")
        connection = await create_conn(host, int(port))
        try:
            return await connection.send(request)
        finally:
            connection.close()


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


class _AlterScram(Request[_AlterRequest]):  # type: ignore[misc]
    """AlterUserScramCredentials (KIP-554), which aiokafka does not have."""

    API_KEY = 51

    def __init__(self, user: str, salt: bytes, salted: bytes) -> None:
        self._upsertion = (user, _SCRAM_SHA_512, _ITERATIONS, salt, salted, {})

    def build(self, request_struct_class: Any) -> Any:  # noqa: ANN401
        return request_struct_class([], [self._upsertion], {})
