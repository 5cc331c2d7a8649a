"""How long the poll loop waits for records, and of which partitions."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry

from stream_guard.core.clock import SystemClock
from stream_guard.core.kafka_types import Partition
from stream_guard.policies.lanes import Lane, LaneLimits, Lanes
from stream_guard.policies.policy import PolicySet, make_policy
from stream_guard.policies.routing import Condition, Routing
from stream_guard.settings import Settings
from stream_guard.telemetry.metrics import Metrics
from stream_guard.testing import ManualJudge, MemoryBroker, MemoryPublisher, MemorySource
from tests.letters_desk import until
from tests.simulation.assembly import make_poll_loop

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_guard.core.kafka_types import Record

FULL, IDLE = Partition("busy", 0), Partition("idle", 0)
FIRST = 4
"""Records of the busy partition that fill it."""
_POLICY = make_policy("one", b"S1: Advertising\nAnswer `VIOLATES` or `SAFE`.")
_LANE = Lane("busy", (Condition("topic", ("busy",)),), limits=LaneLimits(records=FIRST))


class WatchedSource(MemorySource):
    """Notes what each poll asks for, and how long it would wait."""

    def __init__(self, *args: Any) -> None:  # noqa: ANN401
        super().__init__(*args)
        self.polls: list[tuple[frozenset[Partition], int]] = []

    async def poll(
        self,
        partitions: Sequence[Partition],
        *,
        timeout_ms: int,
        **more: Any,  # noqa: ANN401
    ) -> Mapping[Partition, Sequence[Record]]:
        """Return records as soon as there are any."""
        self.polls.append((frozenset(partitions), timeout_ms))
        return await super().poll(partitions, timeout_ms=timeout_ms, **more)

    def waits_ms(self, *partitions: Partition) -> list[int]:
        """Return how long the polls for exactly these partitions would wait."""
        return [timeout_ms for asked, timeout_ms in self.polls if asked == {*partitions}]


@pytest.mark.parametrize("limit", ["partition", "lane"])
async def test_a_poll_of_an_idle_partition_ends_soon_while_another_has_no_room(limit: str) -> None:
    """Room that a partition gets does not end the poll of the others: a long one would let the engine run dry."""
    of_partition = {"partition_in_flight_max": FIRST} if limit == "partition" else {}
    settings = Settings(
        kafka={"topics": ["busy", "idle"]},
        batching={"age_max_ms": 0, "poll_records_max": FIRST, **of_partition},  # type: ignore[arg-type]
    )
    broker, clock, metrics = MemoryBroker(), SystemClock(), Metrics(CollectorRegistry())
    broker.create_topics("busy", "idle", settings.kafka.verdict_topic, partitions=1)
    for number in range(3 * FIRST):
        broker.produce("busy", b'{"id": "%d", "text": "some text"}' % number)
    source, judge = WatchedSource(broker, ["busy", "idle"]), ManualJudge(clock)
    publisher = MemoryPublisher(broker)
    routing = Routing(default=("one",), lanes=Lanes([_LANE] if limit == "lane" else ()))
    poll_loop = make_poll_loop(
        settings,
        PolicySet.of({"one": _POLICY}, routing),
        source=source,
        judge=judge,
        publisher=publisher,
        clock=clock,
        metrics=metrics,
    )
    await publisher.start()
    await source.start(poll_loop)
    running = asyncio.create_task(poll_loop.run())

    def full_since(asked: int) -> bool:
        return len(judge.waiting) == FIRST and len(source.waits_ms(IDLE)) > asked

    for _ in range(3):
        asked = len(source.waits_ms(IDLE))
        await until(lambda asked=asked: full_since(asked))  # type: ignore[misc]
        judge.answer()
    await until(lambda: poll_loop.progress([], engine_ready=True).finished == 3 * FIRST)
    asked = len(source.waits_ms(FULL, IDLE))
    await until(lambda: len(source.waits_ms(FULL, IDLE)) > asked)
    poll_loop.stop()
    await running
    assert max(source.waits_ms(IDLE)) <= 20
    assert max(source.waits_ms(FULL, IDLE)) >= 500, "with room for all there is nothing to look for"
