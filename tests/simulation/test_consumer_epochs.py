"""When an epoch ends and the next begins: a log that went back, and what is read again and why."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import orjson
import pytest
from prometheus_client import CollectorRegistry

from stream_guard.core.kafka_types import Partition
from stream_guard.policies.policy import PolicySet, make_policy
from stream_guard.settings import BatchingSettings, DeliverySettings, Settings
from stream_guard.stream.exactly_once import TransactionalPublisher
from stream_guard.telemetry.metrics import Metrics
from stream_guard.testing import (
    ManualClock,
    ManualJudge,
    MemoryBroker,
    MemoryPublisher,
    MemorySource,
    MemoryTransactor,
)
from tests.hang import HANG_S
from tests.simulation.assembly import make_poll_loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

POSTS = Partition("posts", 0)
SET = PolicySet({"a": make_policy("a", b"# a\nS1: a rule\n")}, {"posts": ("a",)})


class Member:
    """A consumer over a broker in memory, whose judge answers all the time unless it is held."""

    def __init__(self, mode: str) -> None:
        self.settings = Settings.model_validate(
            {
                "delivery": DeliverySettings.model_validate(
                    {
                        "mode": mode,
                        "transaction_interval_ms": 1,
                        "commit_interval_ms": 10,
                        "drain_timeout_s": 0.01,
                    }
                ),
                "batching": BatchingSettings(age_max_ms=0),
            }
        )
        clock = ManualClock()
        self.broker = MemoryBroker()
        kafka, delivery = self.settings.kafka, self.settings.delivery
        self.broker.create_topics("posts", "strange", kafka.verdict_topic, kafka.dead_letter_topic)
        self.source = MemorySource(self.broker, ["posts", "strange"], "g")
        self.judge = ManualJudge(clock)
        self.metrics = Metrics(CollectorRegistry())
        self.transactor = MemoryTransactor(self.broker, "g")
        transactions = (
            TransactionalPublisher(self.transactor, delivery, self.metrics, fenced_pause_s=0)
            if mode == "exactly_once"
            else None
        )
        self.poll_loop = make_poll_loop(
            self.settings,
            SET,
            source=self.source,
            judge=self.judge,
            publisher=transactions or MemoryPublisher(self.broker),
            clock=clock,
            metrics=self.metrics,
        )
        self.held: set[str] = set()

    def produce(self, *names: str) -> None:
        for name in names:
            self.broker.produce("posts", orjson.dumps({"id": name, "text": "t"}))

    def published(self) -> list[str]:
        verdicts = self.broker.records(self.settings.kafka.verdict_topic)
        return [orjson.loads(record.value or b"")["content"]["id"] for record in verdicts]

    def repeats(self) -> dict[str, float]:
        samples = next(iter(self.metrics.repeats.collect())).samples
        return {
            s.labels["cause"]: s.value for s in samples if s.name.endswith("_total") and s.value
        }

    async def until(self, *published: str, position: int) -> None:
        """Answer what is not held until just these are published, and the position is here."""
        async with asyncio.timeout(HANG_S):
            while (
                self.published() != list(published)
                or self.broker.committed("g").get(POSTS) != position
            ):
                self.judge.answer([r for r in self.judge.waiting if r.post.id not in self.held])
                await asyncio.sleep(0.001)


@pytest.fixture(params=["at_least_once", "exactly_once"])
async def member(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Member]:
    monkeypatch.setattr("stream_guard.stream.poll_loop.POLL_TIMEOUT_MS", 2)
    member = Member(request.param)
    await member.source.start(member.poll_loop)
    task = asyncio.create_task(member.poll_loop.run())
    yield member
    member.poll_loop.stop()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await member.poll_loop.drain()
    await member.source.stop()


async def test_a_log_that_went_back_is_read_from_where_it_begins(member: Member) -> None:
    member.held = {"a", "b"}
    member.produce("a", "b")
    while len(member.judge.waiting) < 2:  # noqa: ASYNC110 - nobody could set an event
        await asyncio.sleep(0.001)
    # As when a topic is deleted and made anew: positions go with it, and the client begins again at the start.
    member.broker._topics["posts"][0].records.clear()
    member.broker._topics["posts"][0].end = 0
    member.broker._group("g").positions.clear()
    member.source._next[POSTS] = 0
    member.produce("x", "y")
    await member.until("x", "y", position=2)
    member.produce("z")
    await member.until("x", "y", "z", position=3)
    assert not member.judge.waiting, "what was read of the old log is judged no more"
    assert member.repeats() == {}


async def test_what_is_read_again_is_counted_by_its_cause(member: Member) -> None:
    member.held = {"b"}
    member.produce("a", "b", "c")
    exactly_once = member.settings.delivery.mode == "exactly_once"
    await member.until(*(["a"] if exactly_once else ["a", "c"]), position=1)
    await member.broker.rebalance("g")
    member.held = set()
    await member.until(*(["a", "b", "c"] if exactly_once else ["a", "c", "b", "c"]), position=3)
    assert member.repeats() == {"rebalance": 2}
    if exactly_once:
        member.transactor.faults = ["lost", "unknown"]
        member.produce("d")
        await member.until("a", "b", "c", "d", position=4)
        # The first fault left it unwritten, and it was read again; the second had written it.
        assert member.repeats() == {"rebalance": 2, "rewind": 1}


async def test_offsets_without_records_are_no_lag_and_are_passed(member: Member) -> None:
    member.produce("a")
    await member.until("a", position=1)
    member.broker.skip(POSTS, 1_002)
    async with asyncio.timeout(HANG_S):
        while member.poll_loop.lag_records() != 0:  # noqa: ASYNC110 - nobody could set an event
            await asyncio.sleep(0.001)
        if member.settings.delivery.mode == "at_least_once":
            await member.until("a", position=1_003)
    member.produce("b")
    await member.until("a", "b", position=1_004)


async def test_a_topic_without_a_route_is_left_alone_until_it_has_one(member: Member) -> None:
    member.broker.produce("strange", orjson.dumps({"id": "s", "text": "t"}))
    member.produce("a")
    await member.until("a", position=1)
    assert member.poll_loop.topics_without_route() == ["strange"]
    assert member.poll_loop.lag_records() == 0, "nobody waits for its records"
    assert Partition("strange", 0) not in member.broker.committed("g")
    both = PolicySet(SET.policies, {"posts": ("a",), "strange": ("a",)})
    member.poll_loop._pipeline.switch(both)
    member.produce("b")
    async with asyncio.timeout(HANG_S):
        while sorted(member.published()) != ["a", "b", "s"]:
            member.judge.answer()
            await asyncio.sleep(0.001)
    assert member.poll_loop.topics_without_route() == []


@pytest.mark.parametrize("first", ["rebalance", "stop"])
async def test_a_stop_and_a_rebalance_wait_for_one_drain(member: Member, first: str) -> None:
    patient = member.settings.delivery.model_copy(update={"drain_timeout_s": 60})
    member.poll_loop._settings = patient
    member.held = {"a"}
    member.produce("a")

    async def stop() -> None:
        member.poll_loop.stop()
        assert await member.poll_loop.drain() == 0

    both = {"rebalance": lambda: member.broker.rebalance("g"), "stop": stop}
    async with asyncio.timeout(HANG_S):
        while not member.judge.waiting:  # noqa: ASYNC110 - nobody could set an event
            await asyncio.sleep(0.001)
        tasks = [asyncio.create_task(both.pop(first)())]
        while not member.poll_loop._draining:  # noqa: ASYNC110 - nobody could set an event
            await asyncio.sleep(0)
        tasks.append(asyncio.create_task(both.popitem()[1]()))
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert not any(task.done() for task in tasks), "what is in flight is not finished"
        member.judge.answer()
        await asyncio.gather(*tasks)
    assert member.published() == ["a"]
    assert member.broker.committed("g")[POSTS] == 1
