"""Brokers with TLS, passwords, tokens, certificates and access control lists: the real program by the chart's names.

Every kind of security carries a post to its verdict and its commit in both delivery modes, while the broker asks for
new authentication every two seconds. Every way to be refused ends with its exit code and one line. No output has a
secret in it.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import uuid
from typing import TYPE_CHECKING, Final

import aiohttp
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from stream_guard.testing import (
    BrokerSecurity,
    CertificateAuthority,
    SecuredListener,
    start_broker,
)
from tests.hang import HANG_S
from tests.integration import secured as harness
from tests.integration.harness import (
    Deployment,
    Running,
    deploy,
    post,
    produce,
    read,
    run_command,
    running,
)
from tests.integration.secured import (
    DESCRIBE,
    GROUP,
    KINDS,
    LITERAL,
    PREFIXED,
    READ,
    TOPIC,
    TRANSACTIONAL_ID,
    WRITE,
    Access,
    User,
    connect,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stream_guard.testing import Broker

PASSWORD: Final = "correct-horse-7c1f"  # noqa: S105 - of a broker made here
WRONG: Final = "wrong-donkey-b02e"
NEW: Final = "fresh-zebra-55aa"
REAUTHENTICATION_MS: Final = 2_000
DAY: Final = dt.timedelta(days=1)
MODES: Final = ("at_least_once", "exactly_once")


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """One broker for all: its listeners have a right, an expired, and another host's certificate."""
    authority = CertificateAuthority(tmp_path_factory.mktemp("ca"))
    now = dt.datetime.now(dt.UTC)
    sasl = BrokerSecurity().listeners
    old = authority.issue(
        "old", hosts=("127.0.0.1",), valid_from=now - 3 * DAY, valid_until=now - 2 * DAY
    )
    other = authority.issue("other", hosts=("elsewhere.example",))
    security = BrokerSecurity(
        users={"guard": PASSWORD, "rotated": PASSWORD},
        acls=True,
        reauthentication_ms=REAUTHENTICATION_MS,
        listeners=(
            *sasl,
            SecuredListener("TLS", client_certificates=False),
            SecuredListener("EXPIRED", ("PLAIN",), old),
            SecuredListener("OTHERHOST", ("PLAIN",), other),
        ),
        authority=authority,
    )
    with start_broker(security=security) as broker:
        broker.create_topics(harness.ARCHIVE, configs={"cleanup.policy": "compact"})
        yield broker


@pytest.fixture
def new_topic(secure: Broker) -> object:
    """Make topics on the secured broker, by its plain listener."""

    def make(prefix: str = "topic", partitions: int = 2) -> str:
        name = f"{prefix}-{uuid.uuid4().hex[:12]}"
        secure.create_topics(name, partitions=partitions)
        return name

    return make


class ByFile(Deployment):
    """A deployment whose brokers and security are in a settings file alone."""

    def environment(self) -> dict[str, str]:
        there = ("STREAM_GUARD_KAFKA__SECURITY__", "STREAM_GUARD_KAFKA__BOOTSTRAP_SERVERS")
        every = super().environment()
        return {name: value for name, value in every.items() if not name.startswith(there)}


def deployed(
    user: User, new_topic: object, mode: str = "at_least_once", **extra: str
) -> Deployment:
    assert callable(new_topic)
    return deploy(
        user.bootstrap,
        new_topic,
        STREAM_GUARD_DELIVERY__MODE=mode,
        STREAM_GUARD_KAFKA__SESSION_TIMEOUT_MS="45000",
        **user.chart_environment(),
        **extra,
    )


async def committed(broker: Broker, deployment: Deployment) -> int:
    """Return the sum of the group's positions."""
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
    await admin.start()
    try:
        found = await admin.list_consumer_group_offsets(f"group-{deployment.posts}")
        return sum(
            found[tp].offset
            for tp in (TopicPartition(deployment.posts, 0), TopicPartition(deployment.posts, 1))
            if tp in found and found[tp].offset > 0
        )
    finally:
        await admin.close()


async def until_committed(broker: Broker, deployment: Deployment, count: int) -> None:
    async with asyncio.timeout(HANG_S):
        while await committed(broker, deployment) != count:  # noqa: ASYNC110 - the broker sets no event
            await asyncio.sleep(0.2)


async def judged(broker: Broker, deployment: Deployment, numbers: range) -> None:
    """Send posts by the plain listener; return once all posts up to now have their verdicts."""
    await produce(broker.bootstrap_servers, deployment.posts, (post(n) for n in numbers))
    await read(
        broker.bootstrap_servers,
        [deployment.verdicts],
        lambda records: len(records) >= numbers.stop,
    )


async def healthz(run: Running) -> str:
    port = run.wait_for("ready")["http_port"]
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}/healthz") as health,
        session.get(f"http://127.0.0.1:{port}/metrics") as metrics,
    ):
        return await health.text() + await metrics.text()


def assert_no_secret(text: str, user: User, *more: str) -> None:
    assert user.secrets.text or user.kind == "encryption"
    for secret in (*user.secrets.text, *more):
        assert len(secret) > 8
        assert secret not in text


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
async def test_posts_are_judged_and_committed(
    kind: str, mode: str, secure: Broker, new_topic: object, tmp_path: Path
) -> None:
    """By the chart's names at least once, by the settings' names exactly once; both as the guide has them."""
    assert secure.secured is not None
    user = connect(secure.secured, kind, "guard", PASSWORD, tmp_path)
    deployment = deployed(user, new_topic, mode)
    await Access(secure).grant_all("guard", deployment.environment())
    command = ["stream_guard.cli.main", "run"]
    if mode == "exactly_once":
        command += ["--config", str(user.settings_file())]
        deployment = ByFile(**vars(deployment))
    with running(deployment, tmp_path / "log.txt", command) as run:
        run.wait_for("ready")
        await judged(secure, deployment, range(10))
        # SASL connections are closed now, and posts still get their verdicts.
        await asyncio.sleep(REAUTHENTICATION_MS / 1_000)
        await judged(secure, deployment, range(10, 20))
        shown = await healthz(run)
        await until_committed(secure, deployment, 20)
        assert run.end() == 0
    assert_no_secret(run.log.read_text() + shown, user)


def test_the_guide_has_each_kind_once() -> None:
    for kind in KINDS:
        assert harness.page_block(kind, "toml")
        assert harness.page_block(kind, "yaml")


def refused(deployment: Deployment, user: User, *secrets: str) -> tuple[int, str]:
    """Run the service until it is refused; return its exit code and its one line of error."""
    done = run_command(deployment.environment(), "run")
    output = done.stdout + done.stderr
    assert_no_secret(output, user, *secrets)
    assert "Traceback" not in output
    # The client library logs attempts on its own; the service says one thing.
    told = [
        line["event"]
        for line in map(json.loads, output.splitlines())
        if line.get("logger") == "output"
    ]
    assert len(told) == 1, output
    return done.returncode, told[0]


@pytest.mark.parametrize("kind", KINDS[1:4])
def test_a_wrong_password_is_named(
    kind: str, secure: Broker, new_topic: object, tmp_path: Path
) -> None:
    assert secure.secured is not None
    user = connect(secure.secured, kind, "guard", WRONG, tmp_path)
    code, told = refused(deployed(user, new_topic), user, PASSWORD)
    assert code == 3
    assert f"rejects user 'guard' or the password ({kind})" in told
    assert "fix kafka.security.username and password_file" in told


def test_an_expired_token_is_named(secure: Broker, new_topic: object, tmp_path: Path) -> None:
    assert secure.secured is not None
    user = connect(secure.secured, "OAUTHBEARER", "guard", PASSWORD, tmp_path)
    user.secrets.write("kafka-token", token=secure.secured.token("guard", life_s=-60))
    code, told = refused(deployed(user, new_topic), user)
    assert code == 3
    assert "rejects the token of kafka.security.oauth_token_file" in told


@pytest.mark.parametrize(
    ("listener", "words"),
    [
        ("EXPIRED", "has expired; renew it on the broker"),
        (
            "OTHERHOST",
            "is for another host name; use a name that it holds in kafka.bootstrap_servers",
        ),
    ],
)
def test_a_broker_s_bad_certificate_is_named(
    listener: str, words: str, secure: Broker, new_topic: object, tmp_path: Path
) -> None:
    assert secure.secured is not None
    user = connect(secure.secured, "PLAIN", "guard", PASSWORD, tmp_path)
    user.bootstrap = secure.secured.servers(listener)
    code, told = refused(deployed(user, new_topic), user)
    assert code == 3
    assert f"the certificate of {user.bootstrap} {words}" in told


def test_a_broker_of_an_unknown_ca_is_named(
    secure: Broker, new_topic: object, tmp_path: Path
) -> None:
    assert secure.secured is not None
    user = connect(secure.secured, "PLAIN", "guard", PASSWORD, tmp_path)
    stranger = CertificateAuthority(tmp_path / "stranger")
    user.secrets.write("kafka-ca", ca_crt=stranger.ca_file.read_bytes())
    code, told = refused(deployed(user, new_topic), user)
    assert code == 3
    assert "is signed by an unknown CA" in told
    assert "kafka.security.ssl_cafile" in told


@pytest.mark.parametrize("fault", ["expired", "unknown"])
def test_a_client_certificate_that_the_broker_rejects_is_named(
    fault: str, secure: Broker, new_topic: object, tmp_path: Path
) -> None:
    assert secure.secured is not None
    user = connect(secure.secured, "mutual TLS", "guard", PASSWORD, tmp_path)
    authority, until_ = secure.secured.authority, None
    if fault == "expired":
        until_ = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=5)
    else:
        authority = CertificateAuthority(tmp_path / "stranger")
    bad = authority.issue("guard", valid_until=until_)
    user.secrets.write(
        "kafka-client",
        tls_crt=bad.certificate_file.read_bytes(),
        tls_key=bad.key_file.read_bytes(),
    )
    code, told = refused(deployed(user, new_topic), user)
    assert code == 3
    assert "rejects the client certificate" in told
    assert "kafka.security.ssl_certfile" in told


@pytest.mark.parametrize(
    ("mode", "denied", "words"),
    [
        ("at_least_once", "group", "forbid the consumer group"),
        ("at_least_once", "verdicts", "forbid Write on topics: verdicts-"),
        ("at_least_once", "posts", "forbid Read on topics: posts-"),
        ("exactly_once", "transactions", "forbid transactional ids such as"),
    ],
)
async def test_each_missing_permission_is_named_at_the_start(
    mode: str, denied: str, words: str, secure: Broker, new_topic: object, tmp_path: Path
) -> None:
    assert secure.secured is not None
    access, name = Access(secure), f"limited-{denied}"
    user = connect(secure.secured, "mutual TLS", name, PASSWORD, tmp_path)
    deployment = deployed(user, new_topic, mode)
    group = f"group-{deployment.posts}"
    granted = {
        "group": (READ, GROUP, group, LITERAL),
        "verdicts": (WRITE, TOPIC, deployment.verdicts, LITERAL),
        "posts": (READ, TOPIC, deployment.posts, LITERAL),
        "dead": (WRITE, TOPIC, deployment.dead, LITERAL),
        "archive": (WRITE, TOPIC, harness.ARCHIVE, LITERAL),
        "transactions": (WRITE, TRANSACTIONAL_ID, f"{group}/", PREFIXED),
    }
    # What is denied may still be described, so that the broker shows it and hides only what may be done.
    for what, (operation, kind, resource, pattern) in granted.items():
        allowed = DESCRIBE if what == denied else operation
        await access.grant(name, allowed, kind, resource, pattern=pattern)
    code, told = await asyncio.to_thread(refused, deployment, user)
    assert code == 3
    assert words in told
    assert "kafka-acls.sh --add --allow-principal User:" in told
    shown = run_command(deployment.environment(), "check").stdout
    assert "✗ permissions: " in shown
    # Lines are wrapped for a terminal.
    assert words.rpartition(" ")[0] in " ".join(shown.split())


@pytest.mark.parametrize("mode", MODES)
async def test_a_permission_that_is_taken_away_ends_the_service_by_name(
    mode: str, secure: Broker, new_topic: object, tmp_path: Path
) -> None:
    assert secure.secured is not None
    access, name = Access(secure), f"revoked-{mode.replace('_', '-')}"
    user = connect(secure.secured, "mutual TLS", name, PASSWORD, tmp_path)
    deployment = deployed(user, new_topic, mode)
    await access.grant_all(name, deployment.environment())
    with running(deployment, tmp_path / "log.txt") as run:
        run.wait_for("ready")
        await judged(secure, deployment, range(5))
        shown = await healthz(run)
        await until_committed(secure, deployment, 5)
        await access.take_away(name, WRITE, TOPIC, deployment.verdicts)
        await produce(secure.bootstrap_servers, deployment.posts, map(post, range(5, 10)))
        assert await asyncio.to_thread(run.process.wait, HANG_S) == 3
    output = run.log.read_text()
    assert_no_secret(output + shown, user)
    told = [
        line["event"]
        for line in map(json.loads, output.splitlines())
        if line.get("logger") == "output"
    ][-1]
    assert f"access control lists forbid topic {deployment.verdicts}" in told
    assert await committed(secure, deployment) == 5


async def test_a_password_is_replaced_while_running(
    secure: Broker, new_topic: object, tmp_path: Path
) -> None:
    assert secure.secured is not None
    access = Access(secure)
    user = connect(secure.secured, "SCRAM-SHA-512", "rotated", PASSWORD, tmp_path)
    deployment = deployed(user, new_topic)
    await access.grant_all("rotated", deployment.environment())
    with running(deployment, tmp_path / "log.txt") as run:
        run.wait_for("ready")
        await judged(secure, deployment, range(5))
        user.secrets.write("kafka-user", password=NEW)
        await access.set_password("rotated", NEW)
        # Every connection is older than its session may be now.
        await asyncio.sleep(REAUTHENTICATION_MS / 1_000)
        await judged(secure, deployment, range(5, 10))
        shown = await healthz(run)
        await until_committed(secure, deployment, 10)
        assert run.end() == 0
    assert_no_secret(run.log.read_text() + shown, user, PASSWORD, NEW)
    other = tmp_path / "other"
    other.mkdir()
    late = connect(secure.secured, "SCRAM-SHA-512", "rotated", PASSWORD, other)
    code, told = await asyncio.to_thread(refused, deployed(late, new_topic), late)
    assert (code, "rejects user 'rotated'" in told) == (3, True)


async def test_a_certificate_is_replaced_while_running(
    secure: Broker, new_topic: object, tmp_path: Path
) -> None:
    """New connections use the second certificate after the broker has closed the first."""
    assert secure.secured is not None
    user = connect(secure.secured, "mutual TLS", "guard", PASSWORD, tmp_path)
    deployment = deployed(user, new_topic, STREAM_GUARD_KAFKA__METADATA_MAX_AGE_MS="1000")
    await Access(secure).grant_all("guard", deployment.environment())
    with running(deployment, tmp_path / "log.txt") as run:
        run.wait_for("ready")
        await judged(secure, deployment, range(5))
        renewed = secure.secured.certificate("guard")
        user.secrets.write(
            "kafka-client",
            tls_key=renewed.key_file.read_bytes(),
            tls_crt=renewed.certificate_file.read_bytes(),
        )
        # A broker that restarts takes every connection with it.
        await asyncio.to_thread(secure.restart, 1)
        await judged(secure, deployment, range(5, 10))
        run.wait_for("certificates_reloaded")
        shown = await healthz(run)
        await until_committed(secure, deployment, 10)
        assert run.end() == 0
    assert_no_secret(run.log.read_text() + shown, user)
