"""Runs one Apache Kafka process: its configuration, start, stop and log.

Combined mode: each process is broker and controller. It listens on loopback only.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from stream_guard.core.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.testing.broker.security import NodeSecurity

WATCHDOG: Final = Path(__file__).with_name("watchdog.py")
_STARTED: Final = "Kafka Server started"
_PORT_TAKEN: Final = ("Address already in use", "BindException")
_POLL_S: Final = 0.05
_STOP_S: Final = 15.0
_TAIL_LINES: Final = 20
JVM: Final = (
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",  # it runs for minutes: start-up matters, not the last third of speed
    "-Djava.awt.headless=true",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
)


class PortTakenError(BrokerError):
    """Another process took a port that was free before; choose others and try again."""


class Peer(NamedTuple):
    """The addresses of a node."""

    node: int
    broker_port: int
    controller_port: int


def properties(me: Peer, peers: Sequence[Peer], data: Path) -> dict[str, object]:
    """Return the broker's configuration.

    Replication follows the number of peers: with 3 peers, 3 replicas and at least 2 in sync.
    """
    replicas = len(peers)
    in_sync_min = max(1, replicas - 1)
    voters = ",".join(f"{peer.node}@127.0.0.1:{peer.controller_port}" for peer in peers)
    return {
        "process.roles": "broker,controller",
        "node.id": me.node,
        "controller.quorum.voters": voters,
        "listeners": (
            f"PLAINTEXT://127.0.0.1:{me.broker_port},CONTROLLER://127.0.0.1:{me.controller_port}"
        ),
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{me.broker_port}",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": data,
        "auto.create.topics.enable": "false",
        "default.replication.factor": replicas,
        "min.insync.replicas": in_sync_min,
        "offsets.topic.replication.factor": replicas,
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync_min,
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": in_sync_min,
        # Few partitions of the broker's own: each costs files and start-up time.
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.num.partitions": 4,
        "group.initial.rebalance.delay.ms": 0,
        # A killed broker is noticed in seconds rather than in 9 s.
        "broker.heartbeat.interval.ms": 500,
        "broker.session.timeout.ms": 3_000,
        "log.cleaner.dedupe.buffer.size": 16 << 20,
        # A client that names a rack reads from the replica there (KIP-392); any other one reads from the leader.
        "broker.rack": f"rack-{me.node}",
        "replica.selector.class": "org.apache.kafka.common.replica.RackAwareReplicaSelector",
    }


def _secured(properties: dict[str, object], security: NodeSecurity) -> dict[str, object]:
    """Return a configuration with secured listeners besides its own."""
    secured: dict[str, object] = {**properties, **security.properties}
    for name, more in (
        ("listeners", security.addresses),
        ("advertised.listeners", security.advertised),
        ("listener.security.protocol.map", security.protocols),
    ):
        secured[name] = ",".join([str(secured[name]), *more])
    return secured


def new_cluster_id() -> str:
    """Return a Kafka UUID: 16 bytes in URL-safe base64."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):  # Kafka's own command line takes that for an option
            return text


class Node:
    """One process, which can be started, killed, stopped, and started again on its data."""

    def __init__(
        self,
        me: Peer,
        peers: Sequence[Peer],
        directory: Path,
        *,
        java: Path,
        jars: Sequence[Path],
        options: Sequence[str] = (),
        security: NodeSecurity | None = None,
    ) -> None:
        """Write its configuration under ``directory``; start nothing yet.

        Args:
            me: its addresses.
            peers: all nodes of the cluster, including itself.
            directory: for its data and its log.
            java: the program.
            jars: the class path.
            options: for Java, besides our own.
            security: its secured listeners, besides the plain one.
        """
        self.peer = me
        self._directory = directory
        self._home = directory / f"node-{me.node}"
        self._home.mkdir()
        self._log = self._home / "kafka.log"
        self._config = self._home / "server.properties"
        settings = properties(me, peers, self._home / "data")
        self._format_words: Sequence[str] = ()
        if security is not None:
            settings = _secured(settings, security)
            options = [*options, *security.java_options]
            self._format_words = security.format_words
        self._config.touch(mode=0o600)  # it may hold passwords
        self._config.write_text(
            "".join(f"{name}={value}\n" for name, value in settings.items()), encoding="utf-8"
        )
        self._java = [str(java), *JVM, *options, "-cp", os.pathsep.join(map(str, jars))]
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: int | None = None

    @property
    def running(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def start(self, cluster_id: str) -> None:
        """Start the process; return at once.

        Raises:
            BrokerError: Java could not be run at all.
        """
        config = str(self._config)
        # --ignore-formatted: the second start finds its data and leaves it.
        tool = ["kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", config]
        commands = [
            [*self._java, *tool, "--ignore-formatted", *self._format_words],
            [*self._java, "kafka.Kafka", config],
        ]
        reader, self._pipe = os.pipe()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own script and Java
                [
                    *(sys.executable, "-I", "-S", str(WATCHDOG)),
                    *(str(reader), str(self._directory), json.dumps(commands)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(reader,),
                start_new_session=True,
            )
        os.close(reader)

    def wait_started(self, deadline_s: float) -> None:
        """Return once its log says that it has started.

        Args:
            deadline_s: on the clock of ``time.monotonic()``.

        Raises:
            PortTakenError: it ended because a port was taken.
            BrokerError: it ended otherwise, or not started by the deadline; with the log's tail.
        """
        while _STARTED not in (text := self._read_log()):
            if not self.running:
                text = self._read_log()
                if any(words in text for words in _PORT_TAKEN):
                    message = f"a port of broker {self.peer.node} was taken: {self.peer}"
                    raise PortTakenError(message)
                raise BrokerError(self._failure("ended before it was ready"))
            if time.monotonic() > deadline_s:
                raise BrokerError(self._failure("was not ready in time"))
            time.sleep(_POLL_S)

    def kill(self) -> None:
        """End it and its Java at once (SIGKILL)."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Stop it cleanly (SIGTERM); kill it after 15 s."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        process = self._process
        if process is not None and process.poll() is None:
            if how is signal.SIGTERM:
                process.terminate()
                try:
                    process.wait(_STOP_S)
                except subprocess.TimeoutExpired:
                    how = signal.SIGKILL
            if how is signal.SIGKILL:
                # Its group: the watchdog and Java. Not reaped yet, so the id is still its own.
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None

    def _read_log(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def _failure(self, what: str) -> str:
        code = None if self._process is None else self._process.poll()
        tail = "\n".join("    " + line for line in self._read_log().splitlines()[-_TAIL_LINES:])
        return (
            f"broker {self.peer.node} {what} (exit code {code}; Java: {self._java[0]}); "
            f"the end of its log:\n{tail or '    (empty)'}"
        )
