"""Two deployments exchange escalations over seeded histories of faults; each post ends with one final verdict.

The first has a small model, the second a large one. Members join, leave, are killed and rebalanced, transactions fail,
and outputs are acknowledged late or never. Broker and models are in memory, everything else is real.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, Final

import orjson
import pytest
from prometheus_client import CollectorRegistry

from stream_guard.core.clock import SystemClock
from stream_guard.core.kafka_types import Partition
from stream_guard.records.post import PostParser
from stream_guard.settings import Settings
from stream_guard.stream.delivery import AtLeastOnce, ExactlyOnce
from stream_guard.stream.escalated import EscalatedInput, LateInput
from stream_guard.stream.escalation import Escalations
from stream_guard.stream.exactly_once import TransactionalPublisher
from stream_guard.stream.late_source import LateSource
from stream_guard.stream.pipeline import Pipeline
from stream_guard.stream.poll_loop import PollLoop
from stream_guard.stream.tracing.record_tracer import Tracing
from stream_guard.telemetry.metrics import Metrics
from stream_guard.testing import MemoryBroker, MemoryPublisher, MemorySource, MemoryTransactor
from tests.escalations import ANSWERS, POLICIES, TOPIC, WordJudge, seen
from tests.hang import HANG_S

if TYPE_CHECKING:
    from stream_guard.client import Verdict
    from stream_guard.stream.delivery import Delivery
    from stream_guard.stream.ports import Publisher, Source

HISTORIES: Final = 90
SHARDS: Final = 3
STEPS: Final = 30
POSTS: Final = "posts"
VERDICTS: Final = "stream-guard.verdicts"
WORDS: Final = (*ANSWERS, "error")
_metrics = Metrics(CollectorRegistry())


class Member:
    """One process of a deployment."""

    def __init__(self, broker: MemoryBroker, settings: Settings, place: int) -> None:
        cascade, group = settings.cascade, settings.kafka.group_id
        topics = [*settings.kafka.topics, *settings.side_topics.read]
        self.source = MemorySource(broker, topics, group)
        source: Source = self.source
        inputs: list[Any] = []
        if cascade.escalated_topic is not None:
            inputs.append(EscalatedInput(settings, cascade.escalated_topic))
        if cascade.escalation_deadline_s is not None:
            source = LateSource(
                source, TOPIC, cascade.escalation_deadline_s, SystemClock(), lambda: True
            )
            inputs.append(LateInput(TOPIC, lambda p: broker.committed("large").get(p)))
        self.transactor = MemoryTransactor(broker, group)
        self.memory = MemoryPublisher(broker, manual=True)
        self.publisher: Publisher
        self.delivery: Delivery
        if settings.delivery.mode == "exactly_once":
            self.publisher = transactions = TransactionalPublisher(
                self.transactor, settings.delivery, _metrics, fenced_pause_s=0
            )
            self.delivery = ExactlyOnce(source, transactions)
        else:
            self.publisher = self.memory
            self.delivery = AtLeastOnce(source, self.memory, settings.delivery, _metrics)
        self.pipeline = Pipeline(
            settings,
            POLICIES,
            parser=PostParser(settings.post),
            judge=WordJudge(group, place),
            publisher=self.publisher,
            clock=SystemClock(),
            metrics=_metrics,
            tracing=Tracing(settings.telemetry, group=group),
            escalations=Escalations(settings, _metrics),
            inputs=inputs,
        )
        self.poll_loop = PollLoop(
            source,
            self.pipeline,
            self.delivery,
            settings.delivery,
            clock=SystemClock(),
            metrics=_metrics,
        )
        self.poll_loop.release()
        self.task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self.source.start(self.poll_loop)
        self.task = asyncio.create_task(self.poll_loop.run())

    async def stop(self) -> None:
        """Stop in good order."""
        assert self.task is not None
        self.memory.acknowledge()
        self.poll_loop.stop()
        await self.task
        drain = asyncio.create_task(self.poll_loop.drain())
        while not drain.done():
            self.memory.acknowledge()
            await asyncio.sleep(0)
        await self.source.stop()
        await self.publisher.stop()

    async def kill(self, broker: MemoryBroker, group: str, *, written: bool) -> None:
        """End at once: nothing more is committed; of what was sent, the broker may have all or nothing."""
        assert self.task is not None
        members = broker._group(group).members
        members.remove(self.source)
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        if written:
            for one in self.memory.pending:
                broker.produce(one.topic, one.value, key=one.key, headers=one.headers)
        self.memory.pending = []
        await self.publisher.stop()
        await broker.rebalance(group)


class History:
    """One seeded run of two deployments."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311 - seeded on purpose
        self.broker = MemoryBroker()
        self.broker.create_topics(POSTS, TOPIC, partitions=2)
        self.broker.create_topics(VERDICTS, "stream-guard.dead-letters")
        delivery = {
            "mode": "exactly_once" if seed % 2 else "at_least_once",
            "transaction_interval_ms": 1,
            "commit_interval_ms": 10,
            "drain_timeout_s": 0.05,
        }
        batching = {"size_max": 3, "age_max_ms": 0, "poll_records_max": 7}
        mode = ("provisional", "withhold", "late")[seed % 3]
        first: dict[str, Any] = {"escalation_topic": TOPIC, "escalation": "provisional"}
        if mode != "provisional":
            first["escalation"] = "withhold"
        if mode == "late":
            first |= {"escalation_group": "large", "escalation_deadline_s": 0.001}
        self.mode = mode
        self.settings = {
            "small": Settings(
                kafka={"topics": [POSTS], "group_id": "small"},
                cascade=first,
                delivery=delivery,
                batching=batching,
            ),
            "large": Settings(
                kafka={"group_id": "large"},
                cascade={"escalated_topic": TOPIC},
                delivery=delivery,
                batching=batching,
            ),
        }
        self.members: dict[str, list[Member]] = {"small": [], "large": []}
        self.texts: dict[str, str] = {}
        self.kills = 0

    async def join(self, group: str) -> None:
        if len(self.members[group]) < 2:
            member = Member(self.broker, self.settings[group], ("small", "large").index(group))
            self.members[group].append(member)
            await member.start()

    async def end(self, group: str) -> None:
        members = self.members[group]
        if not members:
            return
        member = members.pop(self.random.randrange(len(members)))
        if self.random.random() < 0.7:
            self.kills += 1
            await member.kill(self.broker, group, written=self.random.random() < 0.5)
        else:
            await member.stop()

    async def produce(self, _group: str) -> None:
        for _ in range(self.random.randint(1, 5)):
            name = f"p{len(self.texts)}"
            self.texts[name] = " ".join(self.random.choices(WORDS, k=2))
            post = orjson.dumps({"id": name, "text": self.texts[name]})
            key = name.encode() if self.random.random() < 0.5 else None
            self.broker.produce(POSTS, post, key=key)

    async def acknowledge(self, group: str) -> None:
        for member in self.members[group]:
            member.memory.acknowledge()

    async def fault(self, group: str) -> None:
        for member in self.members[group]:
            member.transactor.faults.append(self.random.choice(("lost", "unknown", "")))

    async def rebalance(self, group: str) -> None:
        await self.broker.rebalance(group)

    async def run(self) -> None:
        steps = [self.produce] * 6 + [self.acknowledge] * 6 + [self.join] * 3 + [self.end] * 3
        steps += [self.fault, self.rebalance]
        acknowledging = asyncio.create_task(self.acknowledge_always())
        for _ in range(STEPS):
            await self.random.choice(steps)(self.random.choice(("small", "large")))
            for _turn in range(self.random.choice((0, 3, 20))):
                await asyncio.sleep(0)
        for group in self.members:
            await self.join(group)
        async with asyncio.timeout(HANG_S):
            while self.lag("small", POSTS) or self.lag("large", TOPIC) or self.late():  # noqa: ASYNC110 - positions have no event
                await asyncio.sleep(0.001)
        for members in self.members.values():
            for member in members:
                await member.stop()
        acknowledging.cancel()

    def late(self) -> int:
        return self.lag("small", TOPIC) if self.mode == "late" else 0

    async def acknowledge_always(self) -> None:
        while True:
            await asyncio.sleep(0.003)
            for group in self.members:
                await self.acknowledge(group)

    def lag(self, group: str, topic: str) -> int:
        lag = 0
        for partition in self.broker.partitions(topic):
            records = self.broker.records(topic, partition.partition)
            position = self.broker.committed(group).get(Partition(topic, partition.partition), 0)
            lag += max(0, (records[-1].offset + 1 if records else 0) - position)
        return lag

    def check(self) -> None:
        values = [record.value for record in self.broker.records(VERDICTS)]
        final: dict[str, list[Verdict]] = defaultdict(list)
        for verdict in seen(values, decisions=None, provisional=False):
            final[verdict.content.id].append(verdict)
        # What the small model cannot judge at all is a dead letter of the first deployment.
        judged = {name for name, text in self.texts.items() if not text.startswith("error")}
        assert set(final) == judged
        for name, [verdict] in final.items():
            first, second = self.texts[name].split()
            escalated = first in ("severe", "unclear", "slow")
            assert len(verdict.escalated) == escalated, name
            last = ANSWERS.get(second) if escalated else None
            if last is None or (last.decision == "undetermined" and first == "severe"):
                last = ANSWERS[first]
            assert (verdict.decision, verdict.policy.category) == (last.decision, last.category)
        # A service that also acts on provisional verdicts ends with the same.
        last_given = {one.content.id: one.id for one in seen(values, decisions=None)}
        assert last_given == {name: verdicts[0].id for name, verdicts in final.items()}
        if self.settings["small"].delivery.mode == "exactly_once":
            ids = Counter(orjson.loads(value or b"")["id"] for value in values)
            assert max(ids.values(), default=0) <= 1
        withheld = [orjson.loads(value or b"") for value in values]
        if self.mode == "withhold":
            assert not any(one.get("provisional") for one in withheld)


@pytest.mark.parametrize("shard", range(SHARDS))
async def test_each_post_has_one_final_verdict(shard: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream_guard.stream.poll_loop.POLL_TIMEOUT_MS", 2)
    monkeypatch.setattr("stream_guard.stream.late_source._PAUSE_S_MIN", 0.001)
    kills = 0
    for seed in range(shard, HISTORIES, SHARDS):
        history = History(seed)
        try:
            await history.run()
            history.check()
        except (AssertionError, TimeoutError) as error:
            error.add_note(f"seed {seed}, {history.mode}")
            raise
        kills += history.kills
    assert kills
