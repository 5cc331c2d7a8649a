"""Exactly once by a real broker and the real program, while it is killed, stopped and fenced.

All readers here read committed records only, as the promise demands.
"""

from __future__ import annotations

import signal
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from tests.integration.harness import Deployment, deploy, owed_of, post, produce, read, running

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stream_guard.testing import Broker

POLICIES = 2
EXACTLY_ONCE = {"STREAM_GUARD_DELIVERY__MODE": "exactly_once"}


def place_of(broker: Broker, new_topic: Callable[..., str], **extra: str) -> Deployment:
    return deploy(broker.bootstrap_servers, new_topic, **EXACTLY_ONCE, **extra)


def ids_of(records: list[Any]) -> Counter[tuple[int, int, str]]:
    """Return how often each verdict or dead letter is there."""
    counts: Counter[tuple[int, int, str]] = Counter()
    for record in records:
        counts.update(owed_of([record]))
    return counts


async def settle(place: Deployment, owed: int) -> list[Any]:
    """Return all that readers of committed records see, once nothing is owed any more."""
    return await read(
        place.bootstrap,
        [place.verdicts, place.dead],
        lambda got: len(got) >= owed and len(ids_of(got)) >= owed,
    )


async def lag_of(place: Deployment, partitions: int = 2) -> int:
    """Return how many records lie past the group's committed positions."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=place.bootstrap, group_id=f"group-{place.posts}", enable_auto_commit=False
    )
    await consumer.start()
    try:
        tps = [TopicPartition(place.posts, n) for n in range(partitions)]
        ends = await consumer.end_offsets(tps)
        return sum([ends[tp] - (await consumer.committed(tp) or 0) for tp in tps])
    finally:
        await consumer.stop()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_an_end_amid_transactions_neither_loses_nor_repeats(
    broker: Broker, new_topic: Callable[..., str], tmp_path: Path, number: signal.Signals
) -> None:
    count = 6_000
    # Small transactions, so that many end before the kill and one is open at it.
    place = place_of(
        broker,
        new_topic,
        STREAM_GUARD_BATCHING__IN_FLIGHT_RECORDS_MAX="300",
        STREAM_GUARD_DELIVERY__TRANSACTION_RECORDS_MAX="50",
        STREAM_GUARD_DELIVERY__TRANSACTION_INTERVAL_MS="5",
    )
    bad: list[bytes | None] = [b"{", None, b'{"id":"1"}']
    posts = [post(n) if n % 100 else bad[n // 100 % 3] for n in range(count)]
    await produce(place.bootstrap, place.posts, posts)
    owed = (count - count // 100) * POLICIES + count // 100
    with running(place, tmp_path / "first") as run:
        await read(place.bootstrap, [place.verdicts], lambda got: len(got) >= 1_000)
        code = run.end(number)
        assert code == (0 if number == signal.SIGTERM else -signal.SIGKILL), run.tail()
    assert await lag_of(place) > 0, "it was not ended amid its work"
    with running(place, tmp_path / "second") as run:
        records = await settle(place, owed)
        assert run.end() == 0, run.tail()
    counts = ids_of(records)
    assert len(counts) == owed
    assert set(counts.values()) == {1}, "a reader of committed records saw something twice"
    assert await lag_of(place) == 0


async def test_a_member_that_was_away_publishes_nothing_of_what_it_held(
    broker: Broker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    """Stopped past its session, with judgements ready to write, and resumed when its heir has written them."""
    place = place_of(
        broker,
        new_topic,
        STREAM_GUARD_BATCHING__IN_FLIGHT_RECORDS_MAX="300",
        STREAM_GUARD_DELIVERY__TRANSACTION_RECORDS_MAX="20",
    )
    count = 4_000
    await produce(place.bootstrap, place.posts, (post(n) for n in range(count)))
    with running(place, tmp_path / "zombie") as zombie:
        await read(place.bootstrap, [place.verdicts], lambda got: len(got) >= 500)
        zombie.process.send_signal(signal.SIGSTOP)
        assert await lag_of(place) > 0, "it was not stopped amid its work"
        with running(place, tmp_path / "heir") as heir:
            await settle(place, count * POLICIES)
            zombie.process.send_signal(signal.SIGCONT)
            doubt = zombie.wait_for("transaction_in_doubt")
            assert "ProducerFenced" in doubt["error"]
            await produce(
                place.bootstrap, place.posts, (post(n) for n in range(count, count + 500))
            )
            records = await settle(place, (count + 500) * POLICIES)
            assert zombie.end() == 0, zombie.tail()
            assert heir.end() == 0, heir.tail()
    assert set(ids_of(records).values()) == {1}
    assert await lag_of(place) == 0
