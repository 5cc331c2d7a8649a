"""The embedded broker is Apache Kafka, survives what it should, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.metadata import MetadataRequest

from stream_guard.core.errors import BrokerError
from stream_guard.testing.broker import Broker, embedded, java, start_broker
from stream_guard.testing.broker.archive import class_archive
from stream_guard.testing.broker.node import JVM
from tests.integration.harness import HANG_S, ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_CHILD = """
import sys, threading, time
from stream_guard.testing.broker import start_broker

def start():
    global broker
    broker = start_broker(kind="embedded")

thread = threading.Thread(target=start)
thread.start()
thread.join()
try:
    with broker:
        print(broker._directory, flush=True)
        threading.Event().wait()
except KeyboardInterrupt:
    sys.exit(130)
"""


async def _produce(servers: str, topic: str, values: list[bytes]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=servers, acks="all", enable_idempotence=True)
    await producer.start()
    try:
        for value in values:
            await producer.send_and_wait(topic, value)
    finally:
        await producer.stop()


async def _consume(servers: str, topic: str, count: int) -> list[bytes]:
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=servers,
        group_id=f"group-{topic}",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    await consumer.start()
    values: list[bytes] = []
    try:
        async with asyncio.timeout(HANG_S):
            while len(values) < count:
                for records in (await consumer.getmany(timeout_ms=500)).values():
                    values.extend(record.value for record in records)
        await consumer.commit()
    finally:
        await consumer.stop()
    return values


async def _leader(servers: str, topic: str) -> int:
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        (found,) = await admin.describe_topics([topic])
        return int(found["partitions"][0]["leader"])
    finally:
        await admin.close()


def _wait_gone(processes: list[psutil.Process], directory: Path) -> None:
    """Fail, with what is left, where processes or the data are not gone in time."""
    _, left = psutil.wait_procs(processes, timeout=HANG_S)
    assert not left, left
    deadline_s = time.monotonic() + HANG_S
    while directory.exists():
        assert time.monotonic() < deadline_s, list(directory.rglob("*"))
        time.sleep(0.05)


@pytest.fixture
def child() -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process], Path]]:
    """Start a program that has started a broker in a thread that has ended; it, its brood, their data."""
    process = subprocess.Popen(
        [sys.executable, "-c", _CHILD],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    brood: list[psutil.Process] = []
    try:
        directory = Path(process.stdout.readline().strip())
        assert directory.is_dir()
        brood = psutil.Process(process.pid).children(recursive=True)
        assert any("java" in one.name() for one in brood)
        yield process, brood, directory
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        for one in brood:
            if one.is_running():
                one.kill()


async def test_plain_clients_produce_consume_in_a_group_and_commit(
    broker: Broker, new_topic: Callable[..., str]
) -> None:
    topic = new_topic(partitions=3)
    values = [b"%d" % n for n in range(100)]
    await _produce(broker.bootstrap_servers, topic, values)
    assert sorted(await _consume(broker.bootstrap_servers, topic, 100)) == sorted(values)


def test_a_topic_that_the_broker_refuses_is_named(broker: Broker) -> None:
    with pytest.raises(BrokerError, match="topic 'no spaces' was refused: InvalidTopic"):
        broker.create_topics("no spaces")


def test_creating_a_topic_again_leaves_it_as_it_is(broker: Broker) -> None:
    name = f"again-{uuid.uuid4().hex[:12]}"
    broker.create_topics(name, partitions=2)
    broker.create_topics(name, partitions=2)


def test_the_named_broker_is_taken_and_left_alone(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", broker.bootstrap_servers)
    for _ in range(2):  # the second time shows that the first left it running
        with start_broker() as named:
            assert named.kind == "named"
            assert "KAFKA_BOOTSTRAP_SERVERS is set" in named.description


async def test_three_brokers_lose_nothing_when_the_leader_is_killed(three_brokers: Broker) -> None:
    servers = three_brokers.bootstrap_servers
    await asyncio.to_thread(three_brokers.create_topics, "survives")
    leader = await _leader(servers, "survives")
    await _produce(servers, "survives", [b"before"])
    await asyncio.to_thread(three_brokers.kill, leader)
    await _produce(servers, "survives", [b"while one is away"])
    assert await _leader(servers, "survives") != leader
    await asyncio.to_thread(three_brokers.restart, leader)
    await _produce(servers, "survives", [b"after"])
    assert await _consume(servers, "survives", 3) == [b"before", b"while one is away", b"after"]


async def test_a_topic_is_created_once_every_broker_knows_it(three_brokers: Broker) -> None:
    # With one broker asked, 3 of 100 topics were unknown to another.
    admin = AIOKafkaAdminClient(bootstrap_servers=three_brokers.bootstrap_servers)
    await admin.start()
    try:
        brokers = [broker["node_id"] for broker in (await admin.describe_cluster())["brokers"]]
        assert len(brokers) == 3
        for number in range(60):
            await asyncio.to_thread(three_brokers.create_topics, f"topic-{number}")
            request = MetadataRequest([f"topic-{number}"], allow_auto_topic_creation=False)
            for broker in brokers:
                answer = await admin._send_request(request, broker)
                (topic,) = answer.to_object()["topics"]
                assert topic["error_code"] == 0, f"broker {broker} does not know {topic['topic']}"
    finally:
        await admin.close()


async def test_a_broker_that_was_stopped_comes_back_with_its_data() -> None:
    with await asyncio.to_thread(start_broker, kind="embedded") as single:
        await asyncio.to_thread(single.create_topics, "kept")
        await _produce(single.bootstrap_servers, "kept", [b"record"])
        await asyncio.to_thread(single.stop, 1)
        await asyncio.to_thread(single.restart, 1)
        assert await _consume(single.bootstrap_servers, "kept", 1) == [b"record"]


def test_nothing_is_left_when_the_parent_is_killed(
    child: tuple[subprocess.Popen[str], list[psutil.Process], Path],
) -> None:
    process, brood, directory = child
    process.kill()
    _wait_gone(brood, directory)


def test_nothing_is_left_after_an_interrupt_from_the_terminal(
    child: tuple[subprocess.Popen[str], list[psutil.Process], Path],
) -> None:
    process, brood, directory = child
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole foreground group
    assert process.wait(HANG_S) == 130
    _wait_gone(brood, directory)


def test_a_port_that_was_taken_meanwhile_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    free_ports = embedded.free_ports
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        offered = [[other.getsockname()[1], *free_ports(1)], free_ports(2)]
        monkeypatch.setattr(embedded, "free_ports", lambda _count: offered.pop(0))
        with start_broker(kind="embedded") as found:
            found.create_topics("works")
    assert not offered


def test_an_archive_of_classes_is_made_once_and_fits(tmp_path: Path) -> None:
    said: list[str] = []
    program, jars = java.java(), java.kafka_jars(said.append)
    options = class_archive(program, jars, tmp_path, progress=said.append)
    assert class_archive(program, jars, tmp_path, progress=said.append) == options
    assert len(said) == 1
    # -Xshare:on fails where the archive cannot be used.
    command = [program, *JVM, *options, "-Xshare:on", "-cp", ":".join(map(str, jars)), "-version"]
    subprocess.run(command, check=True, capture_output=True)


def test_brokers_start_without_an_archive_where_none_can_be_made(tmp_path: Path) -> None:
    broken = tmp_path / "java"
    broken.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    broken.chmod(0o755)
    said: list[str] = []
    for _ in range(2):
        assert class_archive(broken, [], tmp_path, progress=said.append) == ()
    assert len(said) == 1, "it is not tried again"


def test_a_java_that_fails_is_shown_with_what_it_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "java"
    broken.write_text("#!/bin/sh\necho 'no room for a heap' >&2\nexit 3\n", encoding="utf-8")
    broken.chmod(0o755)
    monkeypatch.setenv("BROKER_JAVA", str(broken))
    with pytest.raises(BrokerError, match=r"(?s)exit code 3; Java: .*no room for a heap"):
        start_broker(kind="embedded")
