"""Runs Apache Kafka, one process per broker, on loopback and free ports; stops it at the end."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from stream_guard.core.errors import BrokerError
from stream_guard.testing.broker import java as runtime
from stream_guard.testing.broker import probe
from stream_guard.testing.broker.archive import class_archive
from stream_guard.testing.broker.base import Broker
from stream_guard.testing.broker.node import Node, Peer, PortTakenError, new_cluster_id
from stream_guard.testing.broker.ports import free_ports
from stream_guard.testing.broker.security import BrokerSecurity, Secured

if TYPE_CHECKING:
    from collections.abc import Callable

BROKERS_MAX: Final = 3
_ATTEMPTS: Final = 5


class EmbeddedBroker(Broker):
    """One to three brokers that this process runs."""

    kind = "embedded"

    def __init__(
        self,
        *,
        brokers: int = 1,
        why: str = "asked for",
        timeout_s: float = 60.0,
        progress: Callable[[str], None] = lambda _: None,
        security: BrokerSecurity | None = None,
    ) -> None:
        """Start it; return when it is ready.

        Args:
            brokers: 1 to 3; with 3, topics have 3 replicas, and 2 must be in sync.
            why: for the description.
            timeout_s: until it is ready, without downloads.
            progress: called with one line when something slow begins.
            security: secured listeners, besides the plain one.

        Raises:
            BrokerError: it did not start; the message has the end of its log.
        """
        if not 1 <= brokers <= BROKERS_MAX:
            message = f"brokers must be 1 to {BROKERS_MAX}, not {brokers}"
            raise BrokerError(message)
        self.brokers = brokers
        self._timeout_s = timeout_s
        self._security = security
        self._java = runtime.java()
        self._jars = runtime.kafka_jars(progress)
        self._options = self._quick_start(progress)
        self._cluster_id = new_cluster_id()
        self._nodes: dict[int, Node] = {}
        self._directory: Path | None = None
        atexit.register(self.close)
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        self.bootstrap_servers = ",".join(
            f"127.0.0.1:{node.peer.broker_port}" for node in self._nodes.values()
        )
        what = "one process" if brokers == 1 else f"{brokers} processes"
        self.description = (
            f"Apache Kafka {runtime.KAFKA_VERSION}, embedded, {what}, at {self.bootstrap_servers} "
            f"({why})"
        )
        try:
            self._wait_ready()
        except BaseException:
            self.close()
            raise

    def _quick_start(self, progress: Callable[[str], None]) -> tuple[str, ...]:
        if os.environ.get(runtime.JAVA_VARIABLE):
            return ()  # the abilities of a Java in BROKER_JAVA are unknown
        return class_archive(self._java, self._jars, runtime.kafka_dir(), progress=progress)

    def _start(self) -> None:
        """Start all nodes; choose other ports if some were taken meanwhile."""
        for attempt in range(1, _ATTEMPTS + 1):
            directory = Path(tempfile.mkdtemp(prefix="stream-guard-kafka-"))
            self._directory = directory
            listeners = 0 if self._security is None else len(self._security.listeners)
            ports = free_ports((2 + listeners) * self.brokers)
            secured_ports = [
                ports[2 * self.brokers :][number * listeners :][:listeners]
                for number in range(self.brokers)
            ]
            if self._security is not None:
                self.secured = Secured(self._security, directory)
                self.secured.set_servers(secured_ports)
            peers = [
                Peer(number + 1, ports[2 * number], ports[2 * number + 1])
                for number in range(self.brokers)
            ]
            self._nodes = {
                peer.node: Node(
                    peer,
                    peers,
                    directory,
                    java=self._java,
                    jars=self._jars,
                    options=self._options,
                    security=None if self.secured is None else self.secured.node(of, number),
                )
                for number, (peer, of) in enumerate(zip(peers, secured_ports, strict=True))
            }
            deadline_s = time.monotonic() + self._timeout_s
            try:
                for node in self._nodes.values():
                    node.start(self._cluster_id)
                for node in self._nodes.values():
                    node.wait_started(deadline_s)
            except PortTakenError:
                self._clear()
                if attempt == _ATTEMPTS:
                    raise
            else:
                return

    def _wait_ready(self) -> None:
        probe.wait_until_ready(
            self.bootstrap_servers, brokers=self.brokers, timeout_s=self._timeout_s
        )

    def _node(self, number: int) -> Node:
        if number not in self._nodes:
            message = f"there is no broker {number}; there are {sorted(self._nodes)}"
            raise BrokerError(message)
        return self._nodes[number]

    def kill(self, node: int) -> None:
        """Kill a broker (SIGKILL)."""
        self._node(node).kill()

    def stop(self, node: int) -> None:
        """Stop a broker cleanly (SIGTERM)."""
        self._node(node).stop()

    def restart(self, node: int) -> None:
        """Start a broker again; stop it first if it runs."""
        restarted = self._node(node)
        restarted.stop()
        restarted.start(self._cluster_id)
        restarted.wait_started(time.monotonic() + self._timeout_s)
        self._wait_ready()

    def close(self) -> None:
        """Kill all brokers and remove their data."""
        self._clear()
        atexit.unregister(self.close)

    def _clear(self) -> None:
        # Killed, not stopped: the data goes with them, and a controlled shutdown takes seconds.
        for node in self._nodes.values():
            node.kill()
        self._nodes = {}
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None
