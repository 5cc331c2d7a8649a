"""``python -m stream_guard.demo``: what ``make demo`` runs.

Starts a broker and a model with random weights, runs ``stream-guard run`` as a process of its own, feeds it posts by
a plain producer, and prints verdicts as they come. It exits 0 only if every record has come out as its verdicts or
as a dead letter, and the consumer drained and exited 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from rich.console import Console

from stream_guard.demo.posts import BROKEN, CHAT, FORUM, demo_posts
from stream_guard.errors import EXIT_ENGINE, EngineError, StreamGuardError
from stream_guard.lines import verdict_line
from stream_guard.policy_store import load_policies
from stream_guard.testing.broker import WATCHDOG, Broker, start_broker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

VERDICTS: Final = "stream-guard.verdicts"
DEAD_LETTERS: Final = "stream-guard.dead-letters"
OUTPUT: Final = Path("demo-output")
_MODEL: Final = Path(".cache") / "random-model"
_START_S: Final = 300.0
_VERDICTS_S: Final = 240.0
_STOP_S: Final = 60.0
_ABORT_S: Final = 5.0
console = Console(highlight=False, soft_wrap=True)


@dataclass
class Totals:
    """What came out."""

    decisions: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    done: set[tuple[str, int, int, str]] = field(default_factory=set)


def _say(text: str) -> None:
    console.print(f"[dim]{text}[/]")


def _environment(broker: Broker, policies: Path) -> dict[str, str]:
    """Return the consumer's environment: what a deployment would set, and sizes for a small CPU."""
    return {
        **os.environ,
        "STREAM_GUARD_KAFKA__BOOTSTRAP_SERVERS": broker.bootstrap_servers,
        "STREAM_GUARD_KAFKA__TOPICS": orjson.dumps([FORUM, CHAT]).decode(),
        "STREAM_GUARD_KAFKA__GROUP_ID": "stream-guard-demo",
        "STREAM_GUARD_KAFKA__VERDICT_TOPIC": VERDICTS,
        "STREAM_GUARD_KAFKA__DEAD_LETTER_TOPIC": DEAD_LETTERS,
        "STREAM_GUARD_POLICIES__PATH": str(policies),
        "STREAM_GUARD_ENGINE__MODEL": str(_MODEL),
        "STREAM_GUARD_ENGINE__MAX_NUM_SEQS": "32",
        "STREAM_GUARD_ENGINE__REASONING_TOKENS_MAX": "32",
        "STREAM_GUARD_ENGINE__RATIONALE_TOKENS_MAX": "24",
        # Random weights are never sure: without a word on this, nearly every post would climb to the top.
        "STREAM_GUARD_CASCADE__LADDER": '[{"effort": "medium", "reasoning_tokens_max": 48}]',
        "STREAM_GUARD_CASCADE__UNCERTAIN_BAND": "[0.499, 0.501]",
        "STREAM_GUARD_HTTP__HOST": "127.0.0.1",
        "STREAM_GUARD_HTTP__PORT": "0",
        "STREAM_GUARD_TELEMETRY__LOG_FORMAT": "json",
        # A model this small gains nothing from threads, and they wait for each other on a busy machine.
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    }


@contextlib.asynccontextmanager
async def _consumer(environment: dict[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run ``stream-guard run`` under a watchdog, so that it ends with us, however we end."""
    reader, writer = os.pipe()
    command = orjson.dumps([[sys.executable, "-m", "stream_guard.cli", "run"]]).decode()
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", WATCHDOG, str(reader), "", command),
            env=environment,
            stderr=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            pass_fds=(reader,),
            start_new_session=True,
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                _say("stopping the consumer")
                await _end(process)
    finally:
        os.close(reader)
        os.close(writer)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ask for an orderly end; with nothing left at stake, do not wait for it long."""
    process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(_ABORT_S):
            await process.wait()
    except TimeoutError:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def _until_ready(process: asyncio.subprocess.Process, log: Path) -> None:
    """Follow the consumer's log until it says that it is ready; keep all of it in a file."""
    assert process.stderr is not None, "it is a pipe"
    started_s = time.monotonic()
    ready = asyncio.Event()

    async def follow(stream: asyncio.StreamReader) -> None:
        with log.open("wb") as file:
            async for line in stream:
                file.write(line)
                file.flush()
                if b'"event":"ready"' in line:
                    ready.set()
                elif b'"event":"assigned"' in line and not ready.is_set():
                    _say("the consumer has joined its group; the engine is starting")

    following = asyncio.create_task(follow(process.stderr))
    _keep.add(following)
    while not ready.is_set():
        if process.returncode is not None:
            await following
            message = f"the consumer ended before it was ready; its log: {log}"
            raise EngineError(message)
        spent_s = time.monotonic() - started_s
        if spent_s > _START_S:
            message = f"the engine was not ready within {_START_S:g} s; its log: {log}"
            raise EngineError(message)
        if sys.stdout.isatty():
            console.print(f"[dim]  engine starting, {spent_s:.0f} s[/]", end="\r")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                await ready.wait()
    _say(f"the engine is ready after {time.monotonic() - started_s:.0f} s")


_keep: set[asyncio.Task[None]] = set()


async def _feed(broker: Broker) -> int:
    """Send the posts, and the records that are none, by a plain producer; return how many records."""
    producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap_servers, acks="all")
    await producer.start()
    try:
        posts = demo_posts()
        for number, (topic, _, value) in enumerate(posts):
            await producer.send_and_wait(topic, value, key=orjson.loads(value)["author"].encode())
            if number % 10 == 5 and number // 10 < len(BROKEN):  # noqa: PLR2004 - spread among the others
                where, broken = BROKEN[number // 10]
                await producer.send_and_wait(where, broken, key=b"broken")
    finally:
        await producer.stop()
    return len(posts) + len(BROKEN)


async def _show(
    broker: Broker, owed: int, totals: Totals, process: asyncio.subprocess.Process
) -> None:
    """Print verdicts and dead letters as they come, until all that is owed is there."""
    texts = {orjson.loads(value)["id"]: text for _, text, value in demo_posts()}
    consumer = AIOKafkaConsumer(
        VERDICTS,
        DEAD_LETTERS,
        bootstrap_servers=broker.bootstrap_servers,
        auto_offset_reset="earliest",
    )
    await consumer.start()
    try:
        with (OUTPUT / "verdicts.jsonl").open("wb") as file:
            async with asyncio.timeout(_VERDICTS_S):
                while len(totals.done) < owed:
                    if process.returncode is not None:
                        raise EngineError(
                            "the consumer ended in the middle; see demo-output/consumer.log"
                        )
                    for records in (await consumer.getmany(timeout_ms=500)).values():
                        for record in records:
                            _show_one(record, texts, totals, file)
    except TimeoutError:
        console.print(f"[red]only {len(totals.done)} of {owed} verdicts and dead letters came[/]")
    finally:
        await consumer.stop()


def _show_one(record: Any, texts: dict[str, str], totals: Totals, file: Any) -> None:  # noqa: ANN401
    if record.topic == DEAD_LETTERS:
        headers = dict(record.headers)
        place = (
            headers["sg_topic"].decode(),
            int(headers["sg_partition"]),
            int(headers["sg_offset"]),
        )
        totals.reasons[headers["sg_reason"].decode()] += 1
        totals.done.add((*place, ""))
        console.print(
            f"{place[0]:<14} [yellow]dead letter[/]  {headers['sg_reason'].decode()}",
            soft_wrap=True,
        )
        return
    verdict = orjson.loads(record.value)
    source = verdict["source"]
    file.write(record.value + b"\n")
    totals.decisions[verdict["decision"]] += 1
    totals.done.add(
        (source["topic"], source["partition"], source["offset"], verdict["policy"]["id"])
    )
    console.print(verdict_line(verdict, texts[verdict["content"]["id"]]))


def _ensure_model() -> None:
    from stream_guard.random_model import make_random_model

    if not (_MODEL / "config.json").exists():
        _say("making a model of the gpt-oss architecture with random weights, once")
        make_random_model(_MODEL)


async def _run(broker: Broker) -> int:
    policies_path = Path(os.environ.get("STREAM_GUARD_POLICIES__PATH", "policies"))
    policies = load_policies(policies_path)
    totals = Totals()
    log = OUTPUT / "consumer.log"
    loop = asyncio.get_running_loop()
    main = asyncio.current_task()
    assert main is not None, "asyncio runs us"
    loop.add_signal_handler(signal.SIGTERM, main.cancel)
    async with _consumer(_environment(broker, policies_path)) as process:
        await _until_ready(process, log)
        _say("feeding posts")
        started_s = time.monotonic()
        records = await _feed(broker)
        owed = len(BROKEN) + sum(len(policies.route(topic)) for topic, _, _ in demo_posts())
        await _show(broker, owed, totals, process)
        seconds = time.monotonic() - started_s
        process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(_STOP_S):
                exit_code = await process.wait()
        except TimeoutError as error:
            message = f"the consumer did not stop within {_STOP_S:g} s; its log: {log}"
            raise EngineError(message) from error
    return _report(records, owed, totals, seconds, exit_code)


def _report(records: int, owed: int, totals: Totals, seconds: float, exit_code: int) -> int:
    verdicts = sum(totals.decisions.values())
    console.print()
    console.print(
        f"{records} records in, {verdicts} verdicts and {sum(totals.reasons.values())} dead letters out, "
        f"{seconds:.1f} s"
    )
    console.print(
        "  " + ", ".join(f"{name} {count}" for name, count in sorted(totals.decisions.items()))
    )
    console.print(
        "  dead letters: "
        + ", ".join(f"{name} {count}" for name, count in sorted(totals.reasons.items()))
    )
    console.print(
        "[yellow]The model has random weights: these verdicts have the right shape and mean nothing.[/] On a GPU node\n"
        "STREAM_GUARD_ENGINE__MODEL=openai/gpt-oss-safeguard-20b is all that changes."
    )
    console.print(
        f"The verdicts are in {OUTPUT / 'verdicts.jsonl'}, the consumer's log in {OUTPUT / 'consumer.log'}."
    )
    console.print("\nTry next:")
    console.print("  .venv/bin/stream-guard policies lint")
    console.print("  .venv/bin/stream-guard config")
    console.print("  .venv/bin/stream-guard policies show dangerous-content")
    if len(totals.done) != owed or exit_code != 0:
        console.print(
            f"[red]accounted for {len(totals.done)} of {owed}; the consumer exited {exit_code}[/]"
        )
        return 1
    return 0


def main() -> int:
    """Run the demo; return its exit code."""
    OUTPUT.mkdir(exist_ok=True)
    try:
        with start_broker(progress=_say) as broker:
            _say(broker.description)
            broker.create_topics(FORUM, CHAT, VERDICTS, DEAD_LETTERS, partitions=2)
            _ensure_model()
            return asyncio.run(_run(broker))
    except StreamGuardError as error:
        console.print(f"[red]{error}[/]", soft_wrap=True)
        return error.exit_code or EXIT_ENGINE
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print("\ninterrupted; everything that was started is stopped")
        return 130


if __name__ == "__main__":
    sys.exit(main())
