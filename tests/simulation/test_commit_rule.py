"""The commit rule over seeded histories: completions in any order, gaps, bad records, rebalances, failures.

The real pipeline and the real offsets, with a judge and a publisher that the history moves. After every step, a
model that knows only what was sent and what was acknowledged says how far a position may be.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import orjson
import pytest
from prometheus_client import CollectorRegistry

from stream_guard.core.errors import PromptError
from stream_guard.core.kafka_types import Partition
from stream_guard.judging.contract import Answer
from stream_guard.policies.policy import PolicySet, make_policy
from stream_guard.records.post import PostParser
from stream_guard.settings import BatchingSettings, Settings, TelemetrySettings
from stream_guard.stream.offsets import PartitionOffsets
from stream_guard.stream.pipeline import Pipeline
from stream_guard.stream.tracing.record_tracer import Tracing
from stream_guard.telemetry.metrics import Metrics
from stream_guard.testing import (
    ManualClock,
    ManualJudge,
    MemoryBroker,
    MemoryPublisher,
    MemoryRecord,
)

if TYPE_CHECKING:
    from stream_guard.stream.in_flight import Outgoing

HISTORIES: Final = 10_000
SHARDS: Final = 20  # so that a failure names few seeds, and each test is short
STEPS: Final = 28
# Topic "one" owes one verdict a record, "two" two, "three" three.
POLICIES: Final = {
    name: make_policy(name, f"# {name}\nS1: a rule\n".encode()) for name in ("a", "b", "c")
}
TOPICS: Final = {"one": ("a",), "two": ("a", "b"), "three": ("a", "b", "c")}
SET: Final = PolicySet(POLICIES, TOPICS)
SETTINGS: Final = Settings(batching=BatchingSettings(size_max=3, age_max_ms=10))
BAD: Final = (b"not json", b"\xff", None, b"[]", b'{"id": "x"}')
Debt = tuple[int, Partition, int, str]  # epoch, partition, offset, policy ("" for a dead letter)

_metrics = Metrics(CollectorRegistry())
_tracing = Tracing(TelemetrySettings(), group="g")
_parser = PostParser(SETTINGS.post)


@dataclass
class Model:
    """What must hold, kept apart from the code that it judges.

    Attributes:
        received: offsets, by epoch and partition, in order.
        owed: what each record of an epoch still owes.
        paid: what was acknowledged, in order.
    """

    received: dict[tuple[int, Partition], list[int]] = field(default_factory=dict)
    owed: dict[tuple[int, Partition], dict[int, set[str]]] = field(default_factory=dict)
    paid: list[Debt] = field(default_factory=list)

    def limit(self, epoch: int, partition: Partition) -> int | None:
        """Return the only right position: the first record that owes, or one past the last."""
        debts = self.owed[epoch, partition]
        offsets = self.received[epoch, partition]
        return min((o for o, d in debts.items() if d), default=offsets[-1] + 1 if offsets else None)


class History:
    """One seeded run."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311 - seeded on purpose
        self.clock = ManualClock()
        self.judge = ManualJudge(self.clock)
        self.broker = MemoryBroker()
        self.broker.create_topics(SETTINGS.kafka.verdict_topic, SETTINGS.kafka.dead_letter_topic)
        self.publisher = MemoryPublisher(self.broker, manual=True)
        self.pipeline = Pipeline(
            SETTINGS,
            SET,
            parser=_parser,
            judge=self.judge,
            publisher=self.publisher,
            clock=self.clock,
            metrics=_metrics,
            tracing=_tracing,
        )
        count = self.random.randint(1, 3)
        self.partitions = [Partition(self.random.choice(list(TOPICS)), n) for n in range(count)]
        self.next = dict.fromkeys(self.partitions, 0)  # where the log ends
        self.committed = dict.fromkeys(self.partitions, 0)
        self.logs: dict[Partition, list[MemoryRecord]] = {p: [] for p in self.partitions}
        self.read = dict.fromkeys(self.partitions, 0)  # position of reading in this epoch
        self.model = Model()
        self.epoch = 0
        self.offsets: dict[Partition, PartitionOffsets] = {}
        self.old: list[tuple[PartitionOffsets, int | None]] = []
        self.assign()

    def assign(self) -> None:
        self.epoch += 1
        for partition in self.partitions:
            self.offsets[partition] = PartitionOffsets(partition, self.epoch)
            self.read[partition] = self.committed[partition]
            self.model.received[self.epoch, partition] = []
            self.model.owed[self.epoch, partition] = {}

    # Steps

    def produce_and_accept(self) -> None:
        partition = self.random.choice(self.partitions)
        for _ in range(self.random.randint(0, 4)):
            self.next[partition] += self.random.choice((0, 0, 0, 1, 5))  # a gap
            offset = self.next[partition]
            value = (
                self.random.choice(BAD)
                if self.random.random() < 0.2
                else orjson.dumps({"id": str(offset), "text": "t"})
            )
            self.logs[partition].append(MemoryRecord(*partition, offset, value=value))
            self.next[partition] += 1
        self.accept(partition)

    def accept(self, partition: Partition) -> None:
        records = [r for r in self.logs[partition] if r.offset >= self.read[partition]]
        records = records[: self.random.randint(1, 6)]
        if not records:
            return
        self.read[partition] = records[-1].offset + 1
        received = self.model.received[self.epoch, partition]
        owed = self.model.owed[self.epoch, partition]
        for record in records:
            received.append(record.offset)
            owed[record.offset] = {""} if record.value in BAD else set(TOPICS[partition.topic])
        self.pipeline.accept(self.offsets[partition], records)

    def dispatch(self) -> None:
        self.clock.advance(self.random.choice((0, 0.004, 0.02)))
        self.pipeline.dispatch(flush=self.random.random() < 0.2)

    def answer(self) -> None:
        waiting = self.judge.waiting
        if not waiting:
            return
        chosen = self.random.sample(waiting, self.random.randint(1, min(3, len(waiting))))
        if self.random.random() < 0.15:
            self.judge.answer(chosen, error=PromptError("too long"))
        else:
            decision = self.random.choice((Answer("violates"), Answer("safe")))
            self.judge.answer(chosen, decision)

    def acknowledge(self) -> None:
        pending = self.publisher.pending
        if not pending:
            return
        chosen = self.random.sample(pending, self.random.randint(1, min(4, len(pending))))
        # Noted first, as the broker knows before we do.
        self.note(chosen)
        self.publisher.acknowledge(chosen)

    def note(self, outgoing: list[Outgoing]) -> None:
        for sent in outgoing:
            work = sent.origin
            offsets, offset = work.offsets, work.record.offset
            if sent.topic == SETTINGS.kafka.dead_letter_topic:
                headers = dict(sent.headers)
                policy = headers.get("sg_policy", b"").decode()
            else:
                policy = orjson.loads(sent.value or b"")["policy"]["id"]
            self.model.paid.append((offsets.epoch, offsets.partition, offset, policy))
            debts = self.model.owed[offsets.epoch, offsets.partition][offset]
            assert policy in debts, "paid twice, or never owed"
            debts.remove(policy)

    def commit(self) -> None:
        fails = self.random.random() < 0.3
        for partition, offsets in self.offsets.items():
            position = offsets.committable()
            if position is not None and not fails:
                assert position >= self.committed[partition], "a committed position went back"
                self.committed[partition] = offsets.committed = position

    def rebalance(self) -> None:
        if self.random.random() < 0.5:
            self.commit()  # a revocation in time; otherwise a session that was lost
        unfinished = self.pipeline.live.unfinished(self.partitions)
        for offsets in self.offsets.values():
            offsets.revoked = True
            self.old.append((offsets, offsets.position()))
        assert self.pipeline.abandon(self.partitions) == unfinished
        assert self.pipeline.admission.records == 0
        assert not self.judge.waiting, "the engine works for nobody"
        self.assign()

    def check(self) -> None:
        live = 0
        for partition, offsets in self.offsets.items():
            limit = self.model.limit(self.epoch, partition)
            position = offsets.position()
            assert position == limit, f"{partition}: position {position}, and {limit} is right"
            assert offsets.committed is None or limit is None or offsets.committed <= limit
            debts = self.model.owed[self.epoch, partition].values()
            assert offsets.unfinished == sum(map(bool, debts))
            live += offsets.unfinished
        assert (
            self.pipeline.admission.records
            == live
            == self.pipeline.live.unfinished(self.partitions)
        )
        for offsets, position in self.old:
            assert offsets.committable() is None, "an old epoch would commit"
            assert offsets.position() == position, "an old epoch moved"

    def run(self) -> int:
        """Return the number of epochs; raises AssertionError where the rule is broken."""
        steps = (
            [self.produce_and_accept] * 6
            + [self.dispatch] * 6
            + [self.answer] * 7
            + [self.acknowledge] * 7
            + [self.commit] * 3
            + [self.rebalance]
        )
        for _ in range(STEPS):
            self.random.choice(steps)()
            self.check()
        self.finish()
        return self.epoch

    def finish(self) -> None:
        """Let everything come to its end; then all is paid for, exactly once in the last epoch."""
        for partition in self.partitions:
            while self.read[partition] < self.next[partition]:
                self.accept(partition)
        while self.pipeline.live.unfinished(self.partitions):
            self.pipeline.dispatch(flush=True)
            self.random.choice((self.answer, self.acknowledge))()
            self.check()
        for partition in self.partitions:
            debts = self.model.owed[self.epoch, partition]
            assert not any(debts.values()), "something was never acknowledged"
            if debts:
                assert self.offsets[partition].position() == self.next[partition]
        assert len(set(self.model.paid)) == len(self.model.paid)
        assert self.pipeline.admission.records == self.pipeline.admission.bytes == 0
        assert self.pipeline.admission.tokens == 0
        self.every_record_is_paid_for()

    def every_record_is_paid_for(self) -> None:
        """Over all epochs, no record of the log is without its verdicts: nothing was skipped."""
        paid = {debt[1:] for debt in self.model.paid}
        for partition, records in self.logs.items():
            for record in records:
                owed = {""} if record.value in BAD else set(TOPICS[partition.topic])
                assert all((partition, record.offset, policy) in paid for policy in owed)


@pytest.mark.parametrize("shard", range(SHARDS))
async def test_no_position_passes_a_record_that_owes(shard: int) -> None:
    epochs = 0
    for seed in range(shard, HISTORIES, SHARDS):
        try:
            epochs += History(seed).run()
        except AssertionError as error:
            error.add_note(f"seed {seed}")
            raise
    # The histories are worth something only if many of them lose their partitions.
    assert epochs > HISTORIES // SHARDS * 3 // 2
