"""The probes tell of real progress: an engine that is down unreadies the service, and only a stall ends its life."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aiohttp
import pytest_asyncio
from prometheus_client import CollectorRegistry

from stream_guard.core.kafka_types import Partition
from stream_guard.core.secrets import MASK
from stream_guard.policies.policy import PolicySet, make_policy
from stream_guard.records.post import PostParser
from stream_guard.service.health.monitor import Monitor
from stream_guard.service.health.state import Health
from stream_guard.service.http import ProbeServer
from stream_guard.settings import Settings
from stream_guard.stream.delivery import AtLeastOnce
from stream_guard.stream.pipeline import Pipeline
from stream_guard.stream.poll_loop import PollLoop
from stream_guard.stream.tracing.record_tracer import Tracing
from stream_guard.telemetry.metrics import Metrics
from stream_guard.testing import (
    ManualClock,
    ManualJudge,
    MemoryBroker,
    MemoryPublisher,
    MemoryRecord,
    MemorySource,
)
from tests.simulation.assembly import take_up

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from stream_guard.stream.offsets import PartitionOffsets

PLACE = Partition("posts", 0)
POLICY = make_policy("p", b"Answer `VIOLATES` or `SAFE`. Judge by the letter.")


class Service:
    """A consumer in memory with a monitor and real probes, moved by hand."""

    def __init__(self) -> None:
        settings = Settings(
            batching={"age_max_ms": 0},  # type: ignore[arg-type]
            delivery={"head_of_line_age_s_max": 10},  # type: ignore[arg-type]
            http={"host": "127.0.0.1", "port": 0},  # type: ignore[arg-type]
        )
        self.clock = ManualClock()
        self.judge = ManualJudge(self.clock)
        self.metrics = Metrics(CollectorRegistry())
        broker = MemoryBroker()
        broker.create_topics(
            "posts", settings.kafka.verdict_topic, settings.kafka.dead_letter_topic
        )
        self.pipeline = Pipeline(
            settings,
            PolicySet({"p": POLICY}, {"posts": ("p",)}),
            parser=PostParser(settings.post),
            judge=self.judge,
            publisher=MemoryPublisher(broker),
            clock=self.clock,
            metrics=self.metrics,
            tracing=Tracing(settings.telemetry, group="g"),
        )
        source = MemorySource(broker, ["posts"])
        self.poll_loop = PollLoop(
            source,
            self.pipeline,
            AtLeastOnce(source, MemoryPublisher(broker), settings.delivery, self.metrics),
            settings.delivery,
            clock=self.clock,
            metrics=self.metrics,
        )
        self.health = Health(turns=lambda: self.poll_loop.turns, stall_s_max=120)
        self.health.engine_ready = self.health.joined = True
        self.monitor = Monitor(
            settings, self.poll_loop, health=self.health, metrics=self.metrics, clock=self.clock
        )
        self.probes = ProbeServer(settings.http, self.health, self.metrics.registry)

    async def accept(self, *values: bytes) -> PartitionOffsets:
        await self.poll_loop.on_assigned([PLACE])
        await take_up(self.poll_loop)
        offsets = self.poll_loop._offsets[PLACE]
        records = [MemoryRecord("posts", 0, n, value=value) for n, value in enumerate(values)]
        self.pipeline.accept(offsets, records)
        self.pipeline.dispatch()
        return offsets

    async def get(self, path: str) -> tuple[int, Any]:
        url = f"http://127.0.0.1:{self.probes.port}{path}"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            json = answer.content_type == "application/json"
            return answer.status, await (answer.json() if json else answer.text())


@pytest_asyncio.fixture
async def service() -> AsyncIterator[Service]:
    service = Service()
    await service.probes.start()
    yield service
    await service.probes.stop()


async def test_without_an_engine_it_lives_and_is_not_ready(service: Service) -> None:
    assert (await service.get("/readyz"))[0] == 200
    service.health.engine_ready = False
    assert (await service.get("/readyz"))[0] == 503
    assert (await service.get("/livez"))[0] == 200
    await service.accept(b'{"id":"1","text":"x"}')
    service.poll_loop.turns = 0
    for _ in range(100):
        service.clock.advance(1)
        assert service.monitor.check() is None


async def test_a_stall_is_the_end_of_its_life_and_says_why(service: Service) -> None:
    for _ in range(122):
        service.clock.advance(1)
        service.monitor.check()
    status, report = await service.get("/healthz")
    assert status == 503
    assert "poll loop" in report["stalled"]
    assert (await service.get("/livez"))[0] == 503


async def test_a_head_of_line_is_named_without_its_text(service: Service) -> None:
    await service.accept(b'{"id":"1","text":"secret"}', b"not JSON", b"not JSON either")
    service.clock.advance(11)
    service.monitor.check()
    _, report = await service.get("/healthz")
    assert len(report["head_of_line"][0].pop("trace_id")) == 32
    assert report["head_of_line"] == [
        {"partition": "posts/0", "offset": 0, "age_s": 11.0, "held_back": 0, "patient": False}
    ]
    assert report["progress"]["in_flight"] == 3
    assert "secret" not in str(report)
    _, metrics = await service.get("/metrics")
    assert "stream_guard_head_of_line_age_seconds 11.0" in metrics
    service.judge.answer()
    service.monitor.check()


async def test_health_shows_no_secret(service: Service) -> None:
    service.health.stalled = "kafka://guard:url-secret@broker:9092 does not answer"
    service.health.details |= {
        "engine_fault": {"hf_token": "field-secret", "model": "m"},
        "policies_refused": "fetching failed: Authorization: Bearer bearer-secret-value",
    }
    status, report = await service.get("/healthz")
    assert status == 503
    assert "secret" not in str(report)
    assert report["engine_fault"] == {"hf_token": MASK, "model": "m"}
    assert report["stalled"] == f"kafka://{MASK}@broker:9092 does not answer"


async def test_what_a_head_holds_back_is_counted(service: Service) -> None:
    offsets = await service.accept(*(b'{"id":"%d","text":"x"}' % n for n in range(3)))
    offsets.finish(1)
    offsets.finish(2)
    (head,) = service.poll_loop.heads()
    assert (head.offset, head.held_back) == (0, 2)


def test_a_long_start_is_no_stall() -> None:
    health = Health(stall_s_max=1e-9)
    assert health.live()
    assert health.live(), "the poll loop cannot turn yet"
    health.joined = True
    assert not health.live()
