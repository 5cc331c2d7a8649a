"""How users of a secured broker connect, by the guide's own lines, and what people grant and take away there."""

from __future__ import annotations

import argparse
import hashlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import yaml
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

from tests.commands.lines import ROOT, blocks
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
PAGE: Final = "docs/guides/kafka-security.md"
KINDS: Final = (
    "encryption",
    "PLAIN",
    "SCRAM-SHA-256",
    "SCRAM-SHA-512",
    "OAUTHBEARER",
    "mutual TLS",
)
"""As the first line of each block of the page says."""
_SECRETS: Final = "/run/secrets"
_SERVERS: Final = "kafka.example.com:9094"


def page_block(kind: str, language: str) -> str:
    """Return the settings file (toml) or the chart's values (yaml) that the page has for a kind."""
    (found,) = [
        text
        for block in blocks(PAGE, (ROOT / PAGE).read_text("utf-8"))
        if block.language == language
        and (text := "\n".join(line for _, line in block.lines)).startswith(f"# {kind}\n")
    ]
    return found


def page_grants() -> list[argparse.Namespace]:
    """Return the grants of the page's ``kafka-acls.sh`` lines; an option that is unknown here fails."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--add", action="store_true", required=True)
    parser.add_argument("--allow-principal", required=True)
    parser.add_argument("--operation", required=True, choices=["Read", "Write"])
    parser.add_argument("--resource-pattern-type", default="literal")
    for kind in ("--topic", "--group", "--transactional-id"):
        parser.add_argument(kind)
    lines = (ROOT / PAGE).read_text("utf-8").splitlines()
    return [
        parser.parse_args(line.split()[1:]) for line in lines if line.startswith("kafka-acls.sh ")
    ]


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


@dataclass
class User:
    """How one user of a secured broker connects.

    Attributes:
        kind: of security.
        bootstrap: of the listener for it.
        secrets: its Secrets.
    """

    kind: str
    bootstrap: str
    secrets: Secrets

    def chart_environment(self) -> dict[str, str]:
        """Return Kafka's variables of the container that the chart renders with the page's values."""
        values = yaml.safe_load(page_block(self.kind, "yaml"))
        rendered = render_with(
            {
                "kafka.bootstrapServers": values["kafka"]["bootstrapServers"],
                "kafka.security": values["kafka"]["security"],
                **{name: value for name, value in values.items() if name != "kafka"},
            }
        )
        folders = {}
        for mount in rendered.container["volumeMounts"]:
            volume = rendered.volumes[mount["name"]]
            if "secret" in volume:
                folders[mount["mountPath"]] = volume["secret"]["secretName"]
            elif "projected" in volume:
                folders[mount["mountPath"]] = volume["name"]
        found = {}
        for variable in rendered.container["env"]:
            name = variable["name"]
            if "valueFrom" in variable and "secretKeyRef" in variable["valueFrom"]:
                at = variable["valueFrom"]["secretKeyRef"]
                value = (self.secrets.folder / at["name"] / at["key"]).read_text("utf-8")
            else:
                value = variable.get("value", "")
            for path, folder in folders.items():
                if value.startswith(f"{path}/"):
                    value = str(self.secrets.folder / folder) + value.removeprefix(path)
            if name.startswith("STREAM_GUARD_KAFKA__SECURITY__"):
                found[name] = value
        assert rendered.env["STREAM_GUARD_KAFKA__BOOTSTRAP_SERVERS"] == _SERVERS
        return found

    def settings_file(self) -> Path:
        """Write the page's settings file, with this broker's address and this test's folder."""
        text = page_block(self.kind, "toml")
        assert text.count(_SERVERS) == 1
        file = self.secrets.folder / "guard.toml"
        text = text.replace(_SERVERS, self.bootstrap)
        file.write_text(text.replace(_SECRETS, str(self.secrets.folder)))
        return file


def connect(secured: Secured, kind: str, user: str, password: str, folder: Path) -> User:
    """Return how a user connects by one kind of security, with everything that its Secrets need."""
    secrets = Secrets(folder)
    secrets.write("kafka-ca", ca_crt=secured.ca_file.read_bytes())
    listener = "SASL"
    if kind == "mutual TLS":
        listener = "MTLS"
        certificate = secured.certificate(user)
        secrets.write(
            "kafka-client",
            tls_crt=certificate.certificate_file.read_bytes(),
            tls_key=certificate.key_file.read_bytes(),
        )
    elif kind == "OAUTHBEARER":
        secrets.write("kafka-token", token=secured.token(user))
    elif kind == "encryption":
        listener = "TLS"
    else:
        secrets.write("kafka-user", password=password)
        (folder / "kafka-user" / "username").write_text(user)
    return User(kind, secured.servers(listener), secrets)


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

    async def take_away(
        self, user: str, operation: int, kind: int, name: str, *, pattern: int = LITERAL
    ) -> None:
        answer = await self.send(
            DeleteAclsRequest(kind, name, pattern, f"User:{user}", "*", operation, _ALLOW)
        )
        ((code, _, matching),) = answer.filter_responses
        assert code == 0
        assert len(matching) == 1

    async def grant_all(self, user: str, environment: Mapping[str, str]) -> None:
        """Grant what the page grants, with the names of a deployment instead of its own."""
        names = {
            "posts": environment["STREAM_GUARD_KAFKA__TOPICS"].strip('["]'),
            "stream-guard.verdicts": environment["STREAM_GUARD_KAFKA__VERDICT_TOPIC"],
            "stream-guard.dead-letters": environment["STREAM_GUARD_KAFKA__DEAD_LETTER_TOPIC"],
            ARCHIVE: ARCHIVE,
            "stream-guard": environment["STREAM_GUARD_KAFKA__GROUP_ID"],
            "stream-guard/": environment["STREAM_GUARD_KAFKA__GROUP_ID"] + "/",
        }
        grants = page_grants()
        assert len(grants) == len(names)
        for one in grants:
            assert one.allow_principal == "User:guard"
            kind = TOPIC if one.topic else GROUP if one.group else TRANSACTIONAL_ID
            name = names.pop(one.topic or one.group or one.transactional_id)
            pattern = PREFIXED if one.resource_pattern_type == "prefixed" else LITERAL
            operation = READ if one.operation == "Read" else WRITE
            await self.grant(user, operation, kind, name, pattern=pattern)

    async def set_password(self, user: str, password: str) -> None:
        """Change a user's password for SCRAM-SHA-512 (RFC 5802: the salted password)."""
        salt = os.urandom(16)
        salted = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, _ITERATIONS)
        answer = await self.send(_AlterScram(user, salt, salted))
        assert [result[1] for result in answer.results] == [0]

    async def send(self, request: Any) -> Any:  # noqa: ANN401 - aiokafka ships no types
        host, port = self.broker.bootstrap_servers.split(",")[0].split(":")
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
