"""Runs the Apache Kafka image in Docker by testcontainers, which also removes it when this process ends."""

from __future__ import annotations

import io
import os
import socket
import tarfile
from typing import TYPE_CHECKING, Final

from stream_guard.core.errors import BrokerError
from stream_guard.testing.broker import probe
from stream_guard.testing.broker.base import Broker
from stream_guard.testing.broker.java import KAFKA_VERSION

if TYPE_CHECKING:
    from collections.abc import Callable

IMAGE: Final = f"apache/kafka:{KAFKA_VERSION}"
_PORT: Final = 9092
_SCRIPT: Final = "/tmp/start.sh"  # noqa: S108 - inside the container
_ENVIRONMENT: Final = {
    "KAFKA_NODE_ID": "1",
    "KAFKA_PROCESS_ROLES": "broker,controller",
    "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
    "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
    "KAFKA_LISTENERS": "PLAINTEXT://:9092,CONTROLLER://:9093",
    "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
    "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
    "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
    "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
    "KAFKA_SHARE_COORDINATOR_STATE_TOPIC_REPLICATION_FACTOR": "1",
    "KAFKA_SHARE_COORDINATOR_STATE_TOPIC_MIN_ISR": "1",
    "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
}


def docker_answers() -> bool:
    """Whether a Docker engine answers here."""
    try:
        import docker
    except ImportError:
        return False
    if not _listens(docker.utils.parse_host(os.environ.get("DOCKER_HOST"))):
        return False
    try:
        client = docker.from_env(timeout=3)
        try:
            return bool(client.ping())
        finally:
            client.close()
    except (docker.errors.DockerException, OSError):
        return False


def _listens(host: str) -> bool:
    """Whether a process listens at Docker's Unix socket; True for other addresses.

    This check comes first, because Docker's client leaves its socket open if nobody listens.
    """
    prefix = "http+unix://"
    if not host.startswith(prefix):
        return True
    with socket.socket(socket.AF_UNIX) as probing:
        try:
            probing.connect(host.removeprefix(prefix))
        except OSError:
            return False
    return True


class DockerBroker(Broker):
    """One broker in a container."""

    kind = "docker"
    brokers = 1

    def __init__(
        self,
        *,
        why: str,
        timeout_s: float = 60.0,
        progress: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Start it; return when it is ready.

        Raises:
            BrokerError: no Docker engine answers, or the container did not serve in time.
        """
        if not docker_answers():
            message = (
                f"no Docker engine answers ({why}), or the extra 'broker' is not installed; start "
                "Docker, or unset BROKER to have an embedded broker started"
            )
            raise BrokerError(message)
        # An extra that only this kind of broker needs.
        from testcontainers.core.container import DockerContainer

        progress(f"starting {IMAGE} in Docker")
        # The address to advertise is known once Docker has mapped the port, so the container waits
        # for a script that says it: no port is guessed.
        wait = f"while [ ! -f {_SCRIPT} ]; do sleep 0.1; done; exec sh {_SCRIPT}"
        container = DockerContainer(IMAGE).with_exposed_ports(_PORT)
        for name, value in _ENVIRONMENT.items():
            container = container.with_env(name, value)
        self._container = container.with_kwargs(entrypoint=["sh", "-c", wait])
        try:
            self._container.start()
            host = self._container.get_container_host_ip()
            self.bootstrap_servers = f"{host}:{self._container.get_exposed_port(_PORT)}"
            self._send_script()
            probe.wait_until_ready(self.bootstrap_servers, brokers=1, timeout_s=timeout_s)
        except BaseException:
            self.close()
            raise
        self.description = f"{IMAGE} in Docker, at {self.bootstrap_servers} ({why})"

    def _send_script(self) -> None:
        script = (
            f"export KAFKA_ADVERTISED_LISTENERS=PLAINTEXT://{self.bootstrap_servers}\n"
            "exec /etc/kafka/docker/run\n"
        ).encode()
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            entry = tarfile.TarInfo(_SCRIPT.lstrip("/"))
            entry.size = len(script)
            tar.addfile(entry, io.BytesIO(script))
        self._container.get_wrapped_container().put_archive("/", archive.getvalue())

    def close(self) -> None:
        """Remove the container."""
        self._container.stop()
