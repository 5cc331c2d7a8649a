"""A stop does not wait for posts that a tenant's quota holds back: the next owner reads them again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import orjson
import pytest
from prometheus_client import CollectorRegistry

from stream_guard.core.kafka_types import Partition
from stream_guard.judging.tiers.cascade import Cascade
from stream_guard.policies.lanes import Lane, Lanes, Quota
from stream_guard.policies.policy import PolicySet, make_policy
from stream_guard.policies.routing import Routing
from stream_guard.settings import CascadeSettings, Settings
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
    from stream_guard.stream.ports import Publisher

POSTS = Partition("posts", 0)
LANES = Lanes([Lane("all", quota=Quota(tokens_per_s=1, burst_tokens=1))])
POLICIES = PolicySet.of(
    {"spam": make_policy("spam", b"S1: a rule\nAnswer `VIOLATES` or `SAFE`.")},
    Routing(default=("spam",), lanes=LANES),
)


@pytest.mark.parametrize("mode", ["at_least_once", "exactly_once"])
async def test_a_drain_gives_back_what_a_quota_holds_back(mode: str) -> None:
    settings = Settings.model_validate(
        {
            "kafka": {"topics": ["posts"], "rebalance_timeout_ms": 3_000_000},
            "batching": {"age_max_ms": 0},
            "delivery": {
                "mode": mode,
                "drain_timeout_s": 3 * HANG_S,
                "transaction_interval_ms": 1,
                "commit_interval_ms": 10,
            },
        }
    )
    clock, broker, metrics = ManualClock(), MemoryBroker(), Metrics(CollectorRegistry())
    kafka = settings.kafka
    broker.create_topics("posts", kafka.verdict_topic, kafka.dead_letter_topic)
    for name, tenant in (("a", "acme"), ("b", "acme"), ("c", "other"), ("d", "third")):
        broker.produce("posts", orjson.dumps({"id": name, "text": name, "tenant": tenant}))
    judge = ManualJudge(clock)
    cascade = Cascade(
        judge,
        (),
        CascadeSettings(tiers=("safeguard",)),
        clock=clock,
        metrics=metrics,
        delay_s_max=1e9,
    )
    await cascade.start(POLICIES)
    publisher: Publisher = MemoryPublisher(broker)
    if mode == "exactly_once":
        transactor = MemoryTransactor(broker, "g")
        publisher = TransactionalPublisher(transactor, settings.delivery, metrics, fenced_pause_s=0)
    source = MemorySource(broker, ["posts"], "g")
    poll_loop = make_poll_loop(
        settings,
        POLICIES,
        source=source,
        judge=cascade,
        publisher=publisher,
        clock=clock,
        metrics=metrics,
    )
    await source.start(poll_loop)
    running = asyncio.create_task(poll_loop.run())

    def published() -> list[str]:
        records = broker.records(kafka.verdict_topic)
        return sorted(orjson.loads(one.value or b"")["content"]["id"] for one in records)

    async with asyncio.timeout(HANG_S):
        while len(judge.waiting) < 3:  # noqa: ASYNC110 - nobody could set an event
            await asyncio.sleep(0.001)
        assert [one.post.id for one in judge.waiting] == ["a", "c", "d"], "b is past the quota"
        judge.answer(judge.waiting[:2])
        while "a" not in published():  # noqa: ASYNC110 - nobody could set an event
            await asyncio.sleep(0.001)
        poll_loop.stop()
        await running
        draining = asyncio.create_task(poll_loop.drain())
        await asyncio.sleep(0)
        if mode == "at_least_once":
            assert not draining.done(), "d is in the engine, and its verdict can be published"
            judge.answer()
        given_up = await draining
    # Exactly once, nothing behind b can be published before b.
    assert published() == (["a", "c", "d"] if mode == "at_least_once" else ["a"])
    assert given_up == (1 if mode == "at_least_once" else 3)
    assert broker.committed("g")[POSTS] == 1
    assert cascade.in_flight() == 0
    await source.stop()
    await publisher.stop()
    await cascade.close()
