"""Lanes and tenants at a simulated engine, by seed: the bounds of the docs, and what a flood does to others.

``make bench-lanes`` serves a thousand histories of each kind; here are a few of them.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from prometheus_client import CollectorRegistry

from benchmarks.lanes_simulation import (
    FLOOD_P99_MAX,
    JAIN_MIN,
    Arrival,
    flood_history,
    lanes_history,
    saturated_history,
    serve,
)
from stream_guard.judging.engine.waiting import FirstComeFirstServed
from stream_guard.policies.lanes import Lane, LaneLimits, Lanes
from stream_guard.policies.policy import PolicySet, make_policy
from stream_guard.policies.routing import Condition, Routing
from stream_guard.settings import BatchingSettings, KafkaSettings, Settings
from stream_guard.telemetry.metrics import Metrics
from stream_guard.testing import (
    ManualClock,
    ManualJudge,
    MemoryBroker,
    MemoryPublisher,
    MemorySource,
)
from tests.hang import HANG_S
from tests.simulation.assembly import make_poll_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stream_guard.judging.contract import Judgement, JudgeRequest

SEEDS = range(24)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_lane_waits_longer_or_gets_less_than_the_bounds(seed: int) -> None:
    watch = lanes_history(seed)
    assert watch.gap <= 1
    assert watch.wait <= 1
    assert watch.wrong_class == 0


@pytest.mark.parametrize("seed", SEEDS[:12])
def test_at_saturation_tenants_get_equal_shares(seed: int) -> None:
    assert saturated_history(seed, seconds=10) >= JAIN_MIN


@pytest.mark.parametrize("seed", SEEDS[:12])
def test_a_flood_of_one_tenant_hardly_delays_the_others(seed: int) -> None:
    before_s, after_s = flood_history(seed, seconds=12)
    assert after_s <= FLOOD_P99_MAX * before_s


def test_first_come_first_served_fails_these_bounds() -> None:
    before_s, after_s = flood_history(0, make=FirstComeFirstServed, seconds=12)
    assert after_s > 2 * before_s


def test_a_slot_that_is_idle_while_work_waits_is_found() -> None:
    class Lazy(FirstComeFirstServed):  # type: ignore[type-arg] # of anything
        def next(self, now_s: float) -> None:
            """Take nothing."""

    with pytest.raises(AssertionError, match="idle while work waits"):
        serve([Arrival(0.0, Lane("all"), "a", 10)], Lazy())


POLICIES = {"touting": make_policy("touting", b"S1: a rule\nAnswer `VIOLATES` or `SAFE`.")}
LIMIT, POLL = 20, 10


class LiveFirst(ManualJudge):
    """Answers live posts in the next turn of the event loop, and the others when it is told to."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock)
        self.everything = False
        self.most = 0

    def submit(
        self, requests: Sequence[JudgeRequest], deliver: Callable[[Sequence[Judgement]], None]
    ) -> None:
        super().submit(requests, deliver)
        asyncio.get_running_loop().call_soon(self.answer_some)

    def answer_some(self) -> None:
        held = [one for one in self.waiting if one.lane is not None and one.lane.backfill]
        self.most = max(self.most, len(held))
        self.answer([one for one in self.waiting if self.everything or one not in held])


async def test_a_backlog_stays_in_kafka_and_live_posts_pass_it() -> None:
    settings = Settings(
        kafka=KafkaSettings(topics=("live", "old")),
        batching=BatchingSettings(age_max_ms=0, poll_records_max=POLL),
    )
    history = Lane(
        "history",
        (Condition("topic", ("old",)),),
        limits=LaneLimits(records=LIMIT),
        backfill=True,
    )
    routed = PolicySet.of(POLICIES, Routing(default=("touting",), lanes=Lanes([history])))
    clock, broker = ManualClock(), MemoryBroker()
    kafka = settings.kafka
    broker.create_topics("live", "old", kafka.verdict_topic, kafka.dead_letter_topic)
    for topic, count in (("old", 200), ("live", 150)):
        for number in range(count):
            value = {"id": f"{topic}-{number}", "text": "t"}
            broker.produce(topic, orjson.dumps(value))
    judge = LiveFirst(clock)
    source = MemorySource(broker, ["live", "old"], "g")
    poll_loop = make_poll_loop(
        settings,
        routed,
        source=source,
        judge=judge,
        publisher=MemoryPublisher(broker),
        clock=clock,
        metrics=Metrics(CollectorRegistry()),
    )
    await source.start(poll_loop)
    running = asyncio.create_task(poll_loop.run())

    def judged(topic: str) -> int:
        verdicts: list[Any] = [
            orjson.loads(one.value or b"") for one in broker.records(kafka.verdict_topic)
        ]
        return len({v["content"]["id"] for v in verdicts if v["source"]["topic"] == topic})

    async with asyncio.timeout(HANG_S):
        while judged("live") < 150:  # noqa: ASYNC110 - nobody could set an event
            await asyncio.sleep(0)
        assert judged("old") == 0
        while judge.most < LIMIT:  # noqa: ASYNC110 - nobody could set an event
            await asyncio.sleep(0)
        turns = poll_loop.turns
        while poll_loop.turns < turns + 3:  # noqa: ASYNC110 - nobody could set an event
            await asyncio.sleep(0.01)
        judge.everything = True
        judge.answer_some()
        while judged("old") < 200:  # noqa: ASYNC110 - nobody could set an event
            await asyncio.sleep(0)
    assert LIMIT <= judge.most <= LIMIT + POLL, "a poll may overshoot by what it takes"
    poll_loop.stop()
    await running
    await poll_loop.drain()
    await source.stop()
