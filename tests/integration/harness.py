"""Runs the real program as a process, feeds it by plain clients, and reads what comes out."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from stream_guard.cli.demo import MODEL
from tests.hang import HANG_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Deployment:
    """Topics, and the environment of a consumer that reads and writes them."""

    bootstrap: str
    posts: str
    verdicts: str
    dead: str
    extra: dict[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        return {
            **{k: v for k, v in os.environ.items() if not k.startswith("STREAM_GUARD_")},
            "STREAM_GUARD_KAFKA__BOOTSTRAP_SERVERS": self.bootstrap,
            "STREAM_GUARD_KAFKA__TOPICS": orjson.dumps([self.posts]).decode(),
            "STREAM_GUARD_KAFKA__GROUP_ID": f"group-{self.posts}",
            "STREAM_GUARD_KAFKA__VERDICT_TOPIC": self.verdicts,
            "STREAM_GUARD_KAFKA__DEAD_LETTER_TOPIC": self.dead,
            "STREAM_GUARD_KAFKA__SESSION_TIMEOUT_MS": "6000",
            "STREAM_GUARD_KAFKA__HEARTBEAT_INTERVAL_MS": "500",
            "STREAM_GUARD_POLICIES__PATH": str(ROOT / "policies"),
            "STREAM_GUARD_ENGINE__KIND": "scripted",
            "STREAM_GUARD_HTTP__HOST": "127.0.0.1",
            "STREAM_GUARD_HTTP__PORT": "0",
            "STREAM_GUARD_TELEMETRY__LOG_FORMAT": "json",
            **self.extra,
        }


def deploy(bootstrap: str, new_topic: Callable[..., str], **extra: str) -> Deployment:
    """Make topics for one test."""
    return Deployment(
        bootstrap, new_topic("posts"), new_topic("verdicts"), new_topic("dead"), extra
    )


def deploy_engine(
    bootstrap: str, new_topic: Callable[..., str], model: Path, policies: Path, **extra: str
) -> Deployment:
    """Make topics for one test with the real engine, small and quick, without a ladder of effort."""
    settings = {
        "STREAM_GUARD_POLICIES__PATH": str(policies),
        "STREAM_GUARD_ENGINE__KIND": "vllm",
        "STREAM_GUARD_ENGINE__MODEL": str(model),
        # Random weights write no answer by themselves: an attempt without the grammar would only take time.
        "STREAM_GUARD_ENGINE__CONSTRAINT": "always",
        "STREAM_GUARD_ENGINE__MAX_NUM_SEQS": "16",
        "STREAM_GUARD_ENGINE__REASONING_TOKENS_MAX": "4",
        "STREAM_GUARD_ENGINE__RATIONALE_TOKENS_MAX": "4",
        "STREAM_GUARD_CASCADE__LADDER": "[]",
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    }
    return deploy(bootstrap, new_topic, **settings | extra)


def deploy_demo_engine(
    bootstrap: str, new_topic: Callable[..., str], policies: Path, **extra: str
) -> Deployment:
    """Make topics for one test that the demo model judges, with room for what it writes."""
    sizes = {
        "STREAM_GUARD_ENGINE__CONSTRAINT": "auto",
        "STREAM_GUARD_ENGINE__REASONING_TOKENS_MAX": "96",
        "STREAM_GUARD_ENGINE__RATIONALE_TOKENS_MAX": "48",
    }
    return deploy_engine(bootstrap, new_topic, MODEL, policies, **sizes | extra)


def run_python(
    *words: str, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run Python to its end, and return what it printed; without an environment, in ours, which finds this tree."""
    return subprocess.run(
        [sys.executable, *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)} if environment is None else dict(environment),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )


def run_command(environment: Mapping[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    """Run one command of the program to its end, and return what it printed."""
    return run_python("-m", "stream_guard", *words, environment=environment)


class Running:
    """The consumer's process, and its log."""

    def __init__(
        self,
        deployment: Deployment,
        log: Path,
        command: Sequence[str] = ("stream_guard.cli.main", "run"),
    ) -> None:
        self.log = log
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *command],
                env=deployment.environment(),
                cwd=ROOT,
                stderr=file,
                stdout=file,
            )

    def wait_for(self, event: str) -> dict[str, Any]:
        """Return the log line of this event; fail, with the log's end, where it does not come."""
        deadline_s = time.monotonic() + HANG_S
        while time.monotonic() < deadline_s:
            for line in self.log.read_bytes().splitlines():
                if f'"event":"{event}"'.encode() in line:
                    found: dict[str, Any] = orjson.loads(line)
                    return found
            self.refuse_ended()
            time.sleep(0.05)
        raise AssertionError(f"no {event!r} within {HANG_S} s:\n{self.tail()}")

    def refuse_ended(self) -> None:
        """Fail, with the log's end, where the process has ended."""
        assert self.process.poll() is None, f"ended early:\n{self.tail()}"

    def tail(self) -> str:
        return self.log.read_text("utf-8", "replace")[-3_000:]

    def end(self, number: int = signal.SIGTERM, seconds: float = HANG_S) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(seconds)


@contextlib.contextmanager
def running(
    deployment: Deployment, log: Path, command: Sequence[str] = ("stream_guard.cli.main", "run")
) -> Iterator[Running]:
    """Run the consumer, or another module; whatever happens, it does not outlive the test."""
    run = Running(deployment, log, command)
    try:
        yield run
    finally:
        if run.process.poll() is None:
            run.process.kill()
            run.process.wait()


def post(number: int, text: str = "a post about nothing much") -> bytes:
    return orjson.dumps(
        {"id": f"p{number}", "text": f"{text} {number}", "author": f"a{number % 7}"}
    )


async def produce(bootstrap: str, topic: str, values: Iterable[bytes | None]) -> None:
    """Send values by a plain producer that knows nothing of Stream Guard."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", linger_ms=5)
    await producer.start()
    try:
        for number, value in enumerate(values):
            await producer.send(topic, value, key=b"k%d" % (number % 5))
        await producer.flush()
    finally:
        await producer.stop()


async def read(
    bootstrap: str,
    topics: Iterable[str],
    enough: Callable[[list[Any]], bool],
    *,
    run: Running | None = None,
    hang_s: float = HANG_S,
) -> list[Any]:
    """Return a plain reader's records of these topics once there are enough; fail where they do not come.

    Args:
        bootstrap: the broker.
        topics: to read from their beginning.
        enough: called with the records so far.
        run: what writes them: fail at once where it has ended, with the end of its log.
        hang_s: how long to wait, in s.
    """
    names = list(topics)
    consumer = AIOKafkaConsumer(
        *names,
        bootstrap_servers=bootstrap,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
    )
    await consumer.start()
    records: list[Any] = []
    try:
        async with asyncio.timeout(hang_s):
            while not enough(records):
                if run is not None:
                    run.refuse_ended()
                for batch in (await consumer.getmany(timeout_ms=200)).values():
                    records.extend(batch)
    except TimeoutError:
        said = "" if run is None else f":\n{run.tail()}"
        message = f"only {len(records)} records of {', '.join(names)} came within {hang_s} s{said}"
        raise AssertionError(message) from None
    finally:
        await consumer.stop()
    return records


async def get(run: Running, path: str) -> str:
    """Return what a running consumer answers at a path of its HTTP server."""
    port = run.wait_for("ready")["http_port"]
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}{path}") as answer,
    ):
        assert answer.status == 200
        return await answer.text()


async def health(run: Running) -> dict[str, Any]:
    """Return a running consumer's ``/healthz``."""
    found: dict[str, Any] = orjson.loads(await get(run, "/healthz"))
    return found


async def until(condition: Callable[[], bool]) -> None:
    """Return once a condition holds that nobody reports, such as a line in a process's log."""
    async with asyncio.timeout(HANG_S):
        while not condition():  # noqa: ASYNC110 - the same: nobody could set an event
            await asyncio.sleep(0.05)


def owed_of(records: Iterable[Any]) -> set[tuple[int, int, str]]:
    """Return (partition, offset, policy) of verdicts, and (partition, offset, '') of dead letters."""
    done = set()
    for record in records:
        headers = dict(record.headers)
        if "sg_reason" in headers:
            done.add((int(headers["sg_partition"]), int(headers["sg_offset"]), ""))
        else:
            verdict = orjson.loads(record.value)
            source = verdict["source"]
            done.add((source["partition"], source["offset"], verdict["policy"]["id"]))
    return done
