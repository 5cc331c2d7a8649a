"""A Kafka broker on an address of this machine that pods reach, with a plain listener and a secured one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiokafka.helpers import create_ssl_context

from stream_guard.testing.broker import java
from stream_guard.testing.broker.node import JVM, new_cluster_id
from stream_guard.testing.broker.ports import free_ports
from tools.machines.steps import execute, until

if TYPE_CHECKING:
    from types import TracebackType

USER, PASSWORD = "guard", "guard-secret"  # a broker that lives for minutes


class LiveBroker:
    """One Kafka process, which may be stopped and started again on its data.

    Args:
        address: of this machine, as pods reach it.

    Attributes:
        plain: ``host:port`` of the listener in the clear.
        secured: ``host:port`` of the listener with SASL_SSL and PLAIN.
        ca: certificate of the authority that signed the listener's, in PEM.
    """

    def __init__(self, address: str) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="stream-guard-live-"))
        plain, secured, controller = free_ports(3)
        self.plain, self.secured = f"{address}:{plain}", f"{address}:{secured}"
        self.ca = self._folder / "ca.crt"
        self._certify(address)
        self._config = self._folder / "server.properties"
        self._config.write_text(self._properties(controller))
        jars = os.pathsep.join(map(str, java.kafka_jars(print)))
        self._java = [str(java.java()), *JVM, "-cp", jars]
        self._process: subprocess.Popen[bytes] | None = None
        tool = ("kafka.tools.StorageTool", "format", "-t", new_cluster_id(), "-c", self._config)
        execute(*self._java, *tool)

    def _certify(self, address: str) -> None:
        """Write an authority's certificate, and one that it signs for the address."""
        folder = self._folder
        key, request, signed = folder / "tls.key", folder / "tls.csr", folder / "tls.crt"
        names = folder / "names"
        names.write_text(f"subjectAltName=IP:{address}\n")
        new = ("openssl", "req", "-newkey", "rsa:2048", "-nodes")
        execute(
            *new,
            "-x509",
            "-days",
            2,
            "-subj",
            "/CN=ca",
            "-keyout",
            folder / "ca.key",
            "-out",
            self.ca,
        )
        execute(*new, "-subj", "/CN=kafka", "-keyout", key, "-out", request)
        authority = ("-CA", self.ca, "-CAkey", folder / "ca.key", "-CAcreateserial")
        sign = ("openssl", "x509", "-req", "-in", request, *authority, "-days", 2)
        execute(*sign, "-extfile", names, "-out", signed)
        # Kafka reads key and certificate from one file.
        (folder / "keystore.pem").write_text(key.read_text() + signed.read_text())

    def _properties(self, controller: int) -> str:
        login = "org.apache.kafka.common.security.plain.PlainLoginModule required"
        settings = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "listeners": (
                f"PLAINTEXT://{self.plain},SECURED://{self.secured},CONTROLLER://127.0.0.1:{controller}"
            ),
            "advertised.listeners": f"PLAINTEXT://{self.plain},SECURED://{self.secured}",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,SECURED:SASL_SSL,CONTROLLER:PLAINTEXT",
            "listener.name.secured.sasl.enabled.mechanisms": "PLAIN",
            "listener.name.secured.plain.sasl.jaas.config": f'{login} user_{USER}="{PASSWORD}";',
            "listener.name.secured.ssl.keystore.type": "PEM",
            "listener.name.secured.ssl.keystore.location": self._folder / "keystore.pem",
            "log.dirs": self._folder / "data",
            "auto.create.topics.enable": "false",
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 4,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "transaction.state.log.num.partitions": 4,
            "group.initial.rebalance.delay.ms": 0,
        }
        return "".join(f"{name}={value}\n" for name, value in settings.items())

    def client(self) -> dict[str, Any]:
        """Return aiokafka's options for the secured listener."""
        return {
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": "PLAIN",
            "sasl_plain_username": USER,
            "sasl_plain_password": PASSWORD,
            "ssl_context": create_ssl_context(cafile=str(self.ca)),
        }

    def start(self) -> None:
        """Start it; return when it listens."""
        with (self._folder / "kafka.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._java, "kafka.Kafka", str(self._config)],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        host, _, port = self.plain.rpartition(":")
        until("the broker's start", lambda: _listens(host, int(port)), 180)

    def stop(self) -> None:
        """Stop it in good order."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGTERM)
            process.wait(60)

    def away(self, seconds: float) -> None:
        """Stop it for some seconds."""
        self.stop()
        time.sleep(seconds)
        self.start()

    def __enter__(self) -> LiveBroker:  # noqa: PYI034 - no subclass
        """Start it."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop it."""
        self.stop()


def _listens(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, port)) == 0
