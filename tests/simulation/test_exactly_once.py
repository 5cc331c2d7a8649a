"""Exactly once over seeded histories of faults.

Members join, leave, are lost and rebalanced; claims are stolen; transactions fail, written and not; judgements
come in any order. The real consumer, pipeline and transactions, over a broker in memory. Whatever happens, each
record ends as its verdicts or its dead letter, once.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Final

import orjson
import pytest
from prometheus_client import CollectorRegistry

from stream_guard.core.errors import PromptError
from stream_guard.core.kafka_types import Partition
from stream_guard.judging.contract import Thought
from stream_guard.policies.policy import PolicySet, make_policy
from stream_guard.records.review_item import review_item_id
from stream_guard.settings import (
    BatchingSettings,
    DeliverySettings,
    KafkaSettings,
    ReviewSettings,
    Settings,
)
from stream_guard.stream.exactly_once import TransactionalPublisher
from stream_guard.stream.review import is_drawn
from stream_guard.telemetry.metrics import Metrics
from stream_guard.testing import (
    ManualClock,
    ManualJudge,
    MemoryBroker,
    MemorySource,
    MemoryTransactor,
)
from tests.hang import HANG_S
from tests.simulation.assembly import make_poll_loop

HISTORIES: Final = 120
SHARDS: Final = 6  # so that a failure names few seeds, and each test is short
STEPS: Final = 40
POLICIES: Final = {name: make_policy(name, f"# {name}\nS1: a rule\n".encode()) for name in "ab"}
SET: Final = PolicySet(POLICIES, {"posts": ("a", "b")})
SETTINGS: Final = Settings(
    kafka=KafkaSettings(reasoning_topic="reasoning", review_topic="review"),
    review=ReviewSettings(sample={"*": {"*": 0.5}}),
    batching=BatchingSettings(size_max=3, age_max_ms=0, poll_records_max=7),
    delivery=DeliverySettings(
        mode="exactly_once",
        transaction_interval_ms=1,
        transaction_records_max=4,
        drain_timeout_s=0.002,
    ),
)
GROUP: Final = "group"
_metrics = Metrics(CollectorRegistry())


class Member:
    """One consumer process."""

    def __init__(self, broker: MemoryBroker) -> None:
        clock = ManualClock()
        self.judge = ManualJudge(clock)
        self.transactor = MemoryTransactor(broker, GROUP)
        self.source = MemorySource(broker, ["posts"], GROUP)
        self.publisher = TransactionalPublisher(
            self.transactor, SETTINGS.delivery, _metrics, fenced_pause_s=0
        )
        self.poll_loop = make_poll_loop(
            SETTINGS,
            SET,
            source=self.source,
            judge=self.judge,
            publisher=self.publisher,
            clock=clock,
            metrics=_metrics,
        )
        self.task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self.source.start(self.poll_loop)
        self.task = asyncio.create_task(self.poll_loop.run())

    async def end(self) -> None:
        """Stop in good order."""
        assert self.task is not None
        self.poll_loop.stop()
        await self.task
        await self.poll_loop.drain()
        await self.source.stop()
        await self.publisher.stop()


class History:
    """One seeded run."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311 - seeded on purpose
        self.broker = MemoryBroker()
        self.partitions = self.random.randint(1, 3)
        self.broker.create_topics("posts", partitions=self.partitions)
        kafka = SETTINGS.kafka
        self.broker.create_topics(
            kafka.verdict_topic, kafka.dead_letter_topic, "reasoning", "review"
        )
        self.thoughts = (Thought("low", "Hm."),) if seed % 4 < 2 else ()
        self.members: list[Member] = []
        self.gone: list[Member] = []
        self.produced = 0
        self.faults = 0

    async def join(self) -> None:
        if len(self.members) < 3:
            member = Member(self.broker)
            member.judge.thoughts = self.thoughts
            member.transactor.turns = self.random.choice((1, 8, 300))
            self.members.append(member)
            await member.start()

    async def leave(self) -> None:
        if len(self.members) > 1:
            member = self.members.pop(self.random.randrange(len(self.members)))
            await member.end()

    async def zombie(self) -> None:
        """A member that the group has lost, and that goes on with what it had: to the broker it is a stranger."""
        if len(self.members) > 1 and len(self.gone) < 2:
            member = self.members.pop(self.random.randrange(len(self.members)))
            self.gone.append(member)
            group = self.broker._group(GROUP)
            group.members.remove(member.source)
            await group.rebalance()
            member.judge.answer()  # so that it writes while its heir claims

    async def produce(self) -> None:
        partition = self.random.randrange(self.partitions)
        for _ in range(self.random.randint(1, 6)):
            if self.random.random() < 0.2:
                self.broker.skip(Partition("posts", partition), self.random.randint(1, 3))
            post = orjson.dumps({"id": str(self.produced), "text": "t"})
            value = post if self.random.random() < 0.9 else b"not json"
            self.broker.produce("posts", value, partition=partition)
            self.produced += 1

    async def answer(self) -> None:
        judge = self.random.choice([*self.members, *self.gone]).judge
        if judge.waiting:
            chosen = self.random.sample(judge.waiting, self.random.randint(1, len(judge.waiting)))
            if self.random.random() < 0.1:
                judge.answer(chosen, error=PromptError("too long"))
            else:
                judge.answer(chosen)

    async def fault(self) -> None:
        self.faults += 1
        transactor = self.random.choice(self.members).transactor
        transactor.faults.append(self.random.choice(("lost", "unknown", "")))

    async def steal(self) -> None:
        """Claim a partition in between, as a member that was away does before the group tells it."""
        self.broker.claim(GROUP, Partition("posts", self.random.randrange(self.partitions)))

    async def rebalance(self) -> None:
        await self.broker.rebalance(GROUP)

    async def run(self) -> None:
        await self.join()
        steps = (
            [self.produce] * 8
            + [self.answer] * 10
            + [self.fault] * 3
            + [self.steal, self.rebalance, self.join, self.leave, self.zombie]
        )
        for _ in range(STEPS):
            await self.random.choice(steps)()
            for _turn in range(self.random.choice((0, 3, 20))):
                await asyncio.sleep(0)
        async with asyncio.timeout(HANG_S):
            await self.finish()
        self.check()

    async def finish(self) -> None:
        """Let everything come to its end; the zombies hear of theirs, and what they still do must come to nothing."""
        for member in self.gone:
            member.judge.answer()
            await asyncio.sleep(0.002)
            await member.source._lose()
        while any(self.lag(number) for number in range(self.partitions)):
            for member in self.members:
                member.judge.answer()
                assert member.task is not None
                assert not member.task.done(), member.task.exception()
            await asyncio.sleep(0.001)
        for member in (*self.members, *self.gone):
            await member.end()

    def lag(self, number: int) -> int:
        records = self.broker.records("posts", number)
        end = records[-1].offset + 1 if records else 0
        return max(0, end - self.broker.committed(GROUP).get(Partition("posts", number), 0))

    def check(self) -> None:
        kafka = SETTINGS.kafka
        owed: Counter[tuple[int, int]] = Counter()
        verdicts = [orjson.loads(r.value or b"") for r in self.broker.records(kafka.verdict_topic)]
        reasoning = [orjson.loads(r.value or b"") for r in self.broker.records("reasoning")]
        with_thoughts = [verdict["id"] for verdict in verdicts] if self.thoughts else []
        assert sorted(one["verdict_id"] for one in reasoning) == sorted(with_thoughts)
        drawn = [verdict["id"] for verdict in verdicts if is_drawn(verdict["id"], 0.5)]
        items = [orjson.loads(r.value or b"")["id"] for r in self.broker.records("review")]
        assert sorted(items) == sorted(map(review_item_id, drawn))
        for verdict in verdicts:
            source = verdict["source"]
            owed[source["partition"], source["offset"]] += 1
        for record in self.broker.records(kafka.dead_letter_topic):
            headers = dict(record.headers)
            malformed = headers["sg_reason"] == b"json"
            place = int(headers["sg_partition"]), int(headers["sg_offset"])
            owed[place] += len(POLICIES) if malformed else 1
        records = self.broker.records("posts")
        assert owed == {(r.partition, r.offset): len(POLICIES) for r in records}


@pytest.mark.parametrize("shard", range(SHARDS))
async def test_each_record_ends_once(shard: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "stream_guard.stream.poll_loop.POLL_TIMEOUT_MS", 2
    )  # a rewind waits for a poll's end
    faults = 0
    for seed in range(shard, HISTORIES, SHARDS):
        history = History(seed)
        try:
            await history.run()
        except (AssertionError, TimeoutError) as error:
            error.add_note(f"seed {seed}")
            raise
        faults += history.faults
    assert faults > HISTORIES // SHARDS
