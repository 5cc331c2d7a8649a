"""How far behind we are, and that what watches pressure is told of it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry

from stream_guard.core.kafka_types import Partition
from stream_guard.judging.engine.scripted import ScriptedJudge
from stream_guard.judging.tiers.cascade import Cascade
from stream_guard.service.app import App
from stream_guard.settings import CascadeSettings, DeliverySettings, Settings
from stream_guard.stream.delivery import AtLeastOnce
from stream_guard.stream.poll_loop import PollLoop
from stream_guard.telemetry.metrics import Metrics
from stream_guard.testing import ManualClock, MemoryBroker, MemoryPublisher, MemorySource
from tests.simulation.assembly import take_up

if TYPE_CHECKING:
    import pytest

ONE, TWO = Partition("posts", 0), Partition("posts", 1)


async def loop_of(*read: tuple[Partition, int], produced: int = 10) -> PollLoop:
    """Return a poll loop that has read so far in partitions of ten records each."""
    broker = MemoryBroker()
    broker.create_topics("posts", partitions=2)
    for partition in (ONE, TWO):
        for _ in range(produced):
            broker.produce("posts", b"{}", partition=partition.partition)
    metrics = Metrics(CollectorRegistry())
    source = MemorySource(broker, ["posts"])
    pipeline: Any = SimpleNamespace(
        progress=asyncio.Event(),
        routes=SimpleNamespace(has_route=lambda _: True, has_lag=lambda _: True),
        lanes=SimpleNamespace(only_backfill=lambda topic: topic == "history"),
    )
    settings = DeliverySettings()
    delivery = AtLeastOnce(source, MemoryPublisher(broker), settings, metrics)
    poll_loop = PollLoop(source, pipeline, delivery, settings, clock=ManualClock(), metrics=metrics)
    await source.start(poll_loop)
    await take_up(poll_loop)
    for partition, count in read:
        poll_loop._offsets[partition].receive(range(count))
    return poll_loop


async def test_lag_is_what_is_still_to_be_read_where_that_is_known() -> None:
    assert (await loop_of()).lag_records() == 20
    assert (await loop_of((ONE, 4))).lag_records() == 16
    assert (await loop_of((ONE, 4), (TWO, 10))).lag_records() == 6
    assert (await loop_of((ONE, 4), (TWO, 1))).lag_records() == 15


async def test_an_end_that_is_older_than_our_position_is_no_lag() -> None:
    poll_loop = await loop_of((ONE, 10), (TWO, 10))
    poll_loop._offsets[ONE].receive([10, 11, 12])
    assert poll_loop.lag_records() == 0


async def test_the_app_puts_its_tiers_round_the_judge_and_tells_them_of_lag(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inner = ScriptedJudge()
    settings = Settings(cascade=CascadeSettings(pressure_interval_s=0.001))
    app = App(settings, judge=inner, metrics=Metrics(CollectorRegistry()))
    assert isinstance(app.judge, Cascade)
    assert app.judge.inner is inner
    told: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
    monkeypatch.setattr(app.judge, "observe", lambda lag: told.done() or told.set_result(lag))
    task = asyncio.create_task(app._feel_pressure(await loop_of((ONE, 4))))
    assert await told == 16
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    app.tracing.close()
