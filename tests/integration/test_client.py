"""The client of verdicts and both examples, by a real broker, with kills in between."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sqlite3
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from stream_guard.client import BrokerError, UnreadableVerdictError, VerdictConsumer
from tests.integration.harness import HANG_S, ROOT, produce
from tests.verdicts import make_verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from stream_guard.client import Verdict
    from stream_guard.testing import Broker


def encoded(**changes: Any) -> bytes:  # noqa: ANN401
    return orjson.dumps(make_verdict(**changes))


async def take(consumer: VerdictConsumer, count: int) -> list[Verdict]:
    """Return the next verdicts; those after them are left for another."""
    taken: list[Verdict] = []
    async for verdict in consumer:
        taken.append(verdict)
        if len(taken) == count:
            break
    return taken


@pytest.fixture
def topic(new_topic: Callable[..., str]) -> str:
    return new_topic("verdicts", partitions=1)


async def test_repeats_are_passed_over_and_what_was_handled_is_committed(
    broker: Broker, topic: str
) -> None:
    values = [encoded(offset=n) for n in range(20)]
    await produce(broker.bootstrap_servers, topic, [*values, *values, encoded(offset=20)])
    async with VerdictConsumer(
        broker.bootstrap_servers, group_id=topic, topic=topic, decisions=None
    ) as consumer:
        taken = await take(consumer, 21)
        assert [v.source.offset for v in taken] == list(range(21))
        assert consumer.repeats == 20
    await produce(broker.bootstrap_servers, topic, [encoded(offset=21)])
    async with VerdictConsumer(
        broker.bootstrap_servers, group_id=topic, topic=topic, decisions=None
    ) as consumer:
        assert [v.source.offset for v in await take(consumer, 1)] == [21]


async def test_what_failed_while_it_was_handled_comes_again(broker: Broker, topic: str) -> None:
    await produce(broker.bootstrap_servers, topic, [encoded(offset=n) for n in range(5)])

    async def fail_at_the_fourth() -> None:
        async with VerdictConsumer(
            broker.bootstrap_servers, group_id=topic, topic=topic, decisions=None
        ) as consumer:
            async for verdict in consumer:
                if verdict.source.offset == 3:
                    raise RuntimeError("enforcement is down")

    with pytest.raises(RuntimeError, match="enforcement is down"):
        await fail_at_the_fourth()
    async with VerdictConsumer(
        broker.bootstrap_servers, group_id=topic, topic=topic, decisions=None
    ) as consumer:
        assert [v.source.offset for v in await take(consumer, 2)] == [3, 4]


async def test_what_is_no_verdict_stands_in_the_way_until_somebody_decides(
    broker: Broker, topic: str
) -> None:
    await produce(broker.bootstrap_servers, topic, [b"{}", encoded(offset=1)])
    for _ in range(2):  # a restart does not step over it
        with pytest.raises(UnreadableVerdictError, match=f"{topic}/0/0"):
            async with VerdictConsumer(
                broker.bootstrap_servers, group_id=topic, topic=topic, decisions=None
            ) as consumer:
                await take(consumer, 1)
    errors: list[UnreadableVerdictError] = []
    async with VerdictConsumer(
        broker.bootstrap_servers,
        group_id=topic,
        topic=topic,
        decisions=None,
        on_unreadable=errors.append,
    ) as consumer:
        assert [v.source.offset for v in await take(consumer, 1)] == [1]
    assert len(errors) == 1


async def test_a_verdict_in_hand_is_finished_before_its_partition_goes_to_another(
    broker: Broker, new_topic: Callable[..., str]
) -> None:
    topic = new_topic("verdicts", partitions=2)
    await produce(broker.bootstrap_servers, topic, [encoded(offset=n) for n in range(40)])
    seen: list[int] = []

    async def work(joined: asyncio.Event | None) -> None:
        async with VerdictConsumer(
            broker.bootstrap_servers, group_id=topic, topic=topic, decisions=None
        ) as consumer:
            async for verdict in consumer:
                if joined is not None and len(seen) == 5:
                    # Handling goes on while the other joins, and must not be taken for done by the rebalance.
                    joined.set()
                    await asyncio.sleep(0.5)
                seen.append(verdict.source.offset)
                if len(seen) >= 40:
                    finished.set()

    joined, finished = asyncio.Event(), asyncio.Event()
    tasks = [asyncio.create_task(work(joined))]
    await joined.wait()
    tasks.append(asyncio.create_task(work(None)))
    async with asyncio.timeout(HANG_S):
        await finished.wait()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert sorted(seen) == list(range(40)), "one was handled twice, or not at all"


async def test_an_unreachable_broker_and_a_missing_topic_are_named(broker: Broker) -> None:
    with pytest.raises(BrokerError, match=r"bootstrap_servers 127\.0\.0\.1:9"):
        async with VerdictConsumer("127.0.0.1:9", group_id="g", start_timeout_s=2):
            pass
    with pytest.raises(BrokerError, match="'no-such' does not exist"):
        async with VerdictConsumer(broker.bootstrap_servers, group_id="g", topic="no-such"):
            pass


# The examples


def start(name: str, broker: Broker, topic: str, database: Path) -> subprocess.Popen[bytes]:
    script = str(ROOT / "examples" / f"{name}.py")
    return subprocess.Popen(
        [
            *(sys.executable, script, broker.bootstrap_servers),
            *("--topic", topic, "--group", topic, "--database", str(database)),
        ],
        stdout=subprocess.DEVNULL,
        cwd=ROOT,
    )


@contextlib.contextmanager
def killed_at_the_end(processes: list[subprocess.Popen[bytes]]) -> Iterator[None]:
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def count(database: Path, table: str) -> int:
    if not database.exists():
        return 0
    with contextlib.closing(sqlite3.connect(database)) as connection:
        try:
            number: int = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608
        except sqlite3.OperationalError:  # not made yet
            return 0
        return number


def wait_for(database: Path, table: str, number: int, process: subprocess.Popen[bytes]) -> None:
    deadline_s = time.monotonic() + HANG_S
    while count(database, table) < number:
        assert process.poll() is None, "the example ended by itself"
        assert time.monotonic() < deadline_s, f"{count(database, table)} of {number} in {table}"
        time.sleep(0.01)


async def run_with_kills(
    name: str, table: str, broker: Broker, topic: str, database: Path, values: list[bytes]
) -> None:
    """Run an example over ``values`` in rounds; SIGKILL it in the middle of each but the last."""
    processes: list[subprocess.Popen[bytes]] = []
    rounds = [values[: len(values) // 3], values[len(values) // 3 :]]
    with killed_at_the_end(processes):
        for part in rounds:
            await produce(broker.bootstrap_servers, topic, part)
            handled = count(database, table)
            processes.append(start(name, broker, topic, database))
            await asyncio.to_thread(
                wait_for, database, table, handled + len(set(part)) // 3, processes[-1]
            )
            processes[-1].send_signal(signal.SIGKILL)
            processes[-1].wait()
        processes.append(start(name, broker, topic, database))
        await asyncio.to_thread(wait_for, database, table, len(set(values)), processes[-1])


async def test_enforcement_acts_once_per_verdict_id_through_kills(
    broker: Broker, topic: str, tmp_path: Path
) -> None:
    values = [encoded(offset=n, decision="violates") for n in range(600)]
    database = tmp_path / "enforcement.sqlite"
    # Repeats near and far, as a Stream Guard that was killed would publish them.
    repeated = [v for pair in zip(values, values[50:] + values[:50], strict=True) for v in pair]
    await run_with_kills("enforcement", "handled", broker, topic, database, repeated)
    with contextlib.closing(sqlite3.connect(database)) as connection:
        acted = [row[0] for row in connection.execute("SELECT verdict_id FROM actions")]
    assert sorted(acted) == sorted(orjson.loads(v)["id"] for v in values)


async def test_the_review_queue_has_one_case_for_each_through_kills(
    broker: Broker, topic: str, tmp_path: Path
) -> None:
    values = [encoded(offset=n, decision="undetermined") for n in range(600)]
    database = tmp_path / "reviews.sqlite"
    await run_with_kills("review_queue", "handled", broker, topic, database, values + values)
    assert count(database, "cases") == 600


async def test_by_default_only_violations_are_handed_out(broker: Broker, topic: str) -> None:
    decisions = ("safe", "undetermined", "violates")
    values = [encoded(offset=n, decision=decision) for n, decision in enumerate(decisions)]
    await produce(broker.bootstrap_servers, topic, values)
    async with VerdictConsumer(broker.bootstrap_servers, group_id=topic, topic=topic) as consumer:
        assert [verdict.decision for verdict in await take(consumer, 1)] == ["violates"]
