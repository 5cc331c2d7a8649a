"""Which broker is taken, and what is said when it cannot be."""

from __future__ import annotations

import socket
import uuid
from pathlib import Path

import pytest

from stream_guard.core.errors import BrokerError
from stream_guard.testing.broker import Broker, choice, java, node, ports, start_broker
from stream_guard.testing.broker.node import Peer, properties


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KAFKA_BOOTSTRAP_SERVERS", "BROKER", "BROKER_JAVA", "DOCKER_HOST"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def no_docker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Point Docker's clients at an engine that is not there."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no-engine.sock")


@pytest.fixture
def closed_port() -> str:
    """Return an address on which nobody listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{one.getsockname()[1]}"


def test_the_default_is_embedded() -> None:
    kind, why = choice.choose(1, prefer_docker=False)
    assert kind == "embedded"
    assert "KAFKA_BOOTSTRAP_SERVERS" in why


def test_a_named_broker_comes_before_docker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "kafka:9092")
    monkeypatch.setenv("BROKER", "docker")
    assert choice.choose(1, prefer_docker=True)[0] == "named"


@pytest.mark.parametrize("kind", ["docker", "embedded"])
def test_the_variable_says_which_kind(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setenv("BROKER", kind)
    assert choice.choose(1, prefer_docker=False) == (kind, f"BROKER={kind}")


@pytest.mark.parametrize(("answers", "kind"), [(True, "docker"), (False, "embedded")])
def test_docker_is_preferred_only_where_an_engine_answers(
    monkeypatch: pytest.MonkeyPatch, *, answers: bool, kind: str
) -> None:
    monkeypatch.setattr(choice, "docker_answers", lambda: answers)
    assert choice.choose(1, prefer_docker=True)[0] == kind


def test_several_brokers_are_embedded_whatever_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "kafka:9092")
    assert choice.choose(3, prefer_docker=True)[0] == "embedded"


def test_an_unknown_kind_is_refused_with_those_that_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BROKER", "dcoker")
    with pytest.raises(BrokerError, match="BROKER=dcoker is no kind of broker; use docker or embe"):
        start_broker()


@pytest.mark.usefixtures("no_docker")
def test_docker_without_an_engine_says_what_to_do() -> None:
    with pytest.raises(BrokerError, match="no Docker engine answers"):
        start_broker(kind="docker")


def test_a_named_broker_that_does_not_answer_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, closed_port: str
) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", closed_port)
    with pytest.raises(BrokerError, match=f"no Kafka broker answers at {closed_port}") as caught:
        start_broker(timeout_s=0.5)
    assert "unset KAFKA_BOOTSTRAP_SERVERS" in str(caught.value)


def test_a_named_kind_without_a_name_is_refused() -> None:
    with pytest.raises(BrokerError, match="KAFKA_BOOTSTRAP_SERVERS, for example"):
        start_broker(kind="named")


@pytest.mark.parametrize("brokers", [0, 4])
def test_the_number_of_brokers_has_limits(brokers: int) -> None:
    with pytest.raises(BrokerError, match=f"brokers must be 1 to 3, not {brokers}"):
        start_broker(brokers, kind="embedded")


def test_a_java_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BROKER_JAVA", str(tmp_path / "java"))
    with pytest.raises(BrokerError, match=f"BROKER_JAVA={tmp_path}/java is no program"):
        java.java()


def test_a_broker_that_is_not_ours_cannot_be_killed() -> None:
    class Other(Broker):
        kind = "docker"

        def close(self) -> None:
            """Own nothing."""

    for act in (Other().kill, Other().stop, Other().restart):
        with pytest.raises(BrokerError, match="use kind='embedded'"):
            act(1)


def test_a_cluster_id_never_begins_with_a_dash(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kafka's own command line would take it for an option."""
    ids = iter([uuid.UUID(bytes=b"\xfb" * 16), uuid.UUID(bytes=b"\x00" * 16)])
    monkeypatch.setattr(uuid, "uuid4", lambda: next(ids))
    assert node.new_cluster_id() == "A" * 22


def test_free_ports_differ_and_are_below_those_of_outgoing_connections() -> None:
    found = ports.free_ports(6)
    assert len(set(found)) == 6
    assert max(found) < 32_768


def test_three_brokers_replicate_to_two_at_least() -> None:
    peers = [Peer(n, 20_000 + n, 21_000 + n) for n in (1, 2, 3)]
    found = properties(peers[0], peers, Path("data"))
    assert found["default.replication.factor"] == 3
    assert found["min.insync.replicas"] == 2
    assert found["transaction.state.log.min.isr"] == 2


def test_brokers_listen_on_loopback_alone() -> None:
    peer = Peer(1, 20_001, 21_001)
    listeners = str(properties(peer, [peer], Path("data"))["listeners"])
    assert listeners == "PLAINTEXT://127.0.0.1:20001,CONTROLLER://127.0.0.1:21001"


@pytest.mark.parametrize(("value", "root"), [("/x", "/x"), ("", "~/.cache"), ("x", "~/.cache")])
def test_the_cache_follows_the_xdg_specification(
    monkeypatch: pytest.MonkeyPatch, value: str, root: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", value)
    assert java.cache_dir() == Path(root).expanduser() / "stream-guard"


def test_a_download_that_was_cut_off_is_not_taken_for_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jar = tmp_path / "kafka.jar"
    jar.touch()
    fetched: list[Path] = []

    def fetch(directory: Path) -> list[Path]:
        fetched.append(directory)
        return [jar]

    monkeypatch.setattr(java, "_fetch", fetch)
    assert java.kafka_jars(str) == [jar]
    assert java.kafka_jars(str) == [jar]
    assert len(fetched) == 1, "the second time it was found"
    jar.unlink()
    java.kafka_jars(str)
    assert len(fetched) == 2, "a jar was gone"
