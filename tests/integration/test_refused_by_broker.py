"""A real broker with passwords and access control lists: ``check`` names each way in which it refuses us."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest
from aiokafka.conn import create_conn
from aiokafka.protocol.admin import CreateAclsRequest

from stream_guard.testing.broker import node
from stream_guard.testing.broker.embedded import EmbeddedBroker
from stream_guard.testing.broker.ports import free_ports
from tests.integration.harness import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

PASSWORD: Final = "right-secret"  # noqa: S105 - of a broker made here
_TOPIC: Final = 2
_GROUP: Final = 3
TOPICS: Final = ("posts", "stream-guard.verdicts", "stream-guard.dead-letters")


@pytest.fixture(scope="module")
def secured() -> Iterator[tuple[EmbeddedBroker, str]]:
    """Start a broker with a second listener that asks for a password; yields it and that listener's address."""
    (port,) = free_ports(1)
    plain = node.properties

    def properties(me: node.Peer, peers: Sequence[node.Peer], data: Path) -> dict[str, object]:
        found = plain(me, peers, data)
        address = f"SASL://127.0.0.1:{port}"
        found["listeners"] = f"{found['listeners']},{address}"
        found["advertised.listeners"] = f"{found['advertised.listeners']},{address}"
        protocols = "listener.security.protocol.map"
        found[protocols] = f"{found[protocols]},SASL:SASL_PLAINTEXT"
        module = "org.apache.kafka.common.security.plain.PlainLoginModule"
        return found | {
            "listener.name.sasl.sasl.enabled.mechanisms": "PLAIN",
            "listener.name.sasl.plain.sasl.jaas.config": (
                f'{module} required user_guard="{PASSWORD}";'
            ),
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
        }

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(node, "properties", properties)
        broker = EmbeddedBroker(why="with passwords")
    try:
        broker.create_topics(*TOPICS, partitions=1)
        yield broker, f"127.0.0.1:{port}"
    finally:
        broker.close()


def check(address: str, password: str = PASSWORD, **settings: str) -> str:
    """Run ``stream-guard check`` as the user guard; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "stream_guard", "check"],
        env={
            **{k: v for k, v in os.environ.items() if not k.startswith("STREAM_GUARD_")},
            "STREAM_GUARD_KAFKA__BOOTSTRAP_SERVERS": address,
            "STREAM_GUARD_KAFKA__TOPICS": '["posts"]',
            "STREAM_GUARD_KAFKA__SECURITY__PROTOCOL": "SASL_PLAINTEXT",
            "STREAM_GUARD_KAFKA__SECURITY__SASL_MECHANISM": "PLAIN",
            "STREAM_GUARD_KAFKA__SECURITY__USERNAME": "guard",
            "STREAM_GUARD_KAFKA__SECURITY__PASSWORD": password,
            "STREAM_GUARD_ENGINE__KIND": "scripted",
            **settings,
        },
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert password not in done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


async def grant(broker: EmbeddedBroker, kind: int, *names: str) -> None:
    """Let the user guard do everything with these topics (kind 2) or groups (kind 3)."""
    host, port = broker.bootstrap_servers.split(":")
    connection = await create_conn(host, int(port))
    try:
        for name in names:
            # Kafka's protocol: pattern type 3 is literal, operation 2 is all, permission 3 is allow.
            answer = await connection.send(
                CreateAclsRequest(kind, name, 3, "User:guard", "*", 2, 3)
            )
            assert [code for code, _ in answer.creation_responses] == [0]
    finally:
        connection.close()


async def test_each_refusal_is_named_until_none_is_left(
    secured: tuple[EmbeddedBroker, str],
) -> None:
    broker, address = secured
    told = check(address, "wrong-secret")
    assert "✗ broker: " in told
    assert "rejects user 'guard' or the password (PLAIN)" in told

    told = check(address, STREAM_GUARD_KAFKA__SECURITY__SASL_MECHANISM="SCRAM-SHA-512")
    assert "does not offer the SASL mechanism SCRAM-SHA-512 but PLAIN" in told

    told = check(broker.bootstrap_servers)
    assert "uses no SASL; set kafka.security.protocol to PLAINTEXT" in told

    told = check(address)
    assert f"hide topics: {', '.join(sorted(TOPICS))}; grant Describe" in told
    assert "--allow-principal User:guard" in told
    assert "do not exist" not in told

    await grant(broker, _TOPIC, *TOPICS)
    told = check(address)
    assert "✓ topics: reading posts" in told
    assert "✗ permissions: access control lists forbid the consumer group 'stream-guard'" in told

    await grant(broker, _GROUP, "stream-guard")
    told = check(address)
    assert "✓ permissions: " in told

    told = check(address, STREAM_GUARD_DELIVERY__MODE="exactly_once")
    assert "forbid transactional ids such as 'stream-guard/posts/0'" in told
