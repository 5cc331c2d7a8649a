"""With the engine down and posts arriving, the consumer keeps its membership, its place and its memory."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import orjson
import pytest
import structlog
from prometheus_client import CollectorRegistry

from stream_guard.core.clock import SystemClock
from stream_guard.core.errors import EngineError, StallError
from stream_guard.judging.engine.scripted import ScriptedJudge
from stream_guard.judging.engine.supervisor import SupervisedJudge
from stream_guard.service.app import App
from stream_guard.settings import load_settings
from stream_guard.telemetry.metrics import Metrics
from stream_guard.testing import ManualJudge
from tests.integration.harness import HANG_S, Deployment, deploy, owed_of, post, produce, read

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_guard.judging.engine.supervisor import EngineState
    from stream_guard.policies.policy import PolicySet
    from stream_guard.testing import Broker

MAX_POLL_INTERVAL_S = 2


class Engine(ScriptedJudge):
    """Judges at once, until the test kills it; starts when the test lets it."""

    def __init__(self, may_start: asyncio.Event) -> None:
        super().__init__()
        self._may_start = may_start
        self._dead = asyncio.Event()

    async def start(self, policies: PolicySet) -> None:
        await self._may_start.wait()
        await super().start(policies)

    async def wait_failed(self) -> BaseException:
        await self._dead.wait()
        return EngineError("the engine's process died")

    async def kill(self) -> None:
        self._dead.set()


class Service:
    """The whole consumer in this process, on a real broker."""

    def __init__(self) -> None:
        self.may_start = asyncio.Event()
        self.may_start.set()
        self.engines: list[Engine] = []
        self.settings = load_settings()
        self.metrics = Metrics(CollectorRegistry())
        judge = SupervisedJudge(
            self._make,
            self.settings.engine,
            clock=SystemClock(),
            metrics=self.metrics,
            changed=self._changed,
        )
        self.app = App(self.settings, judge=judge, metrics=self.metrics)

    def _make(self) -> Engine:
        self.engines.append(Engine(self.may_start))
        return self.engines[-1]

    def _changed(self, state: EngineState) -> None:
        self.app.engine_changed(state)  # which is made after its judge

    def value(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(HANG_S):
            while not condition():  # noqa: ASYNC110 - counters of the program, which wake nobody
                await asyncio.sleep(0.02)


def configure(monkeypatch: pytest.MonkeyPatch, place: Deployment) -> None:
    for name, value in place.environment().items():
        if name.startswith("STREAM_GUARD_"):
            monkeypatch.setenv(name, value)


async def test_down_it_keeps_its_membership_takes_nothing_and_then_drains(
    broker: Broker, new_topic: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = deploy(
        broker.bootstrap_servers,
        new_topic,
        STREAM_GUARD_KAFKA__MAX_POLL_INTERVAL_MS=str(1_000 * MAX_POLL_INTERVAL_S),
        STREAM_GUARD_BATCHING__IN_FLIGHT_RECORDS_MAX="200",
        STREAM_GUARD_BATCHING__POLL_RECORDS_MAX="50",
    )
    configure(monkeypatch, place)
    service = Service()
    running = asyncio.create_task(service.app.run())
    try:
        await produce(place.bootstrap, place.posts, (post(n) for n in range(100)))
        await read(place.bootstrap, [place.verdicts], lambda got: len(owed_of(got)) >= 200)

        service.may_start.clear()
        await service.engines[0].kill()
        await service.until(lambda: not service.app.health.engine_ready)
        await produce(place.bootstrap, place.posts, (post(n) for n in range(100, 3_100)))
        consumer = service.app._poll_loop
        assert consumer is not None
        # A turn lasts half a second while there is nothing to do: twice the time after which we would be put out.
        turns = consumer.turns + 4 * MAX_POLL_INTERVAL_S
        await service.until(lambda: consumer.turns >= turns)
        taken = service.value("stream_guard_records_total", topic=place.posts)
        assert taken <= 100 + 50, "at most one poll was under way"
        assert service.app.health.live()
        assert not service.app.health.ready()
        assert not running.done()

        service.may_start.set()
        await service.until(service.app.health.ready)
        records = await read(
            place.bootstrap, [place.verdicts, place.dead], lambda got: len(owed_of(got)) >= 6_200
        )
        assert len(records) == 6_200
        assert {orjson.loads(r.value)["decision"] for r in records} == {"safe"}
        assert service.value("stream_guard_rebalances_total") == 1
        assert service.value("stream_guard_engine_rebuilds_total", cause="died") == 1
    finally:
        service.app.stop()
        await running


async def test_one_rebuild_too_many_is_the_end_with_the_engines_exit_code(
    broker: Broker, new_topic: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = deploy(broker.bootstrap_servers, new_topic, STREAM_GUARD_ENGINE__REBUILDS_MAX="0")
    configure(monkeypatch, place)
    service = Service()
    running = asyncio.create_task(service.app.run())
    await service.until(service.app.health.ready)
    await service.engines[0].kill()
    with pytest.raises(EngineError, match=r"engine\.rebuilds_max") as caught:
        await running
    assert caught.value.exit_code == 4


async def test_posts_that_are_never_judged_though_nothing_failed_end_the_service(
    broker: Broker, new_topic: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = deploy(
        broker.bootstrap_servers,
        new_topic,
        STREAM_GUARD_ENGINE__HANG_TIMEOUT_S="1",
        STREAM_GUARD_ENGINE__REQUEST_TIMEOUT_S="0.5",
        STREAM_GUARD_DELIVERY__PUBLISH_TIMEOUT_S="1",
        STREAM_GUARD_DELIVERY__STALL_TIMEOUT_S="2",
    )
    configure(monkeypatch, place)
    # Nobody watches this judge: it takes posts, and that is the last that is heard of them.
    app = App(load_settings(), judge=ManualJudge(), metrics=Metrics(CollectorRegistry()))
    await produce(place.bootstrap, place.posts, [post(1)])
    with (
        structlog.testing.capture_logs() as lines,
        pytest.raises(StallError, match=r"delivery\.stall_timeout_s"),
    ):
        await app.run()
    (line,) = [line for line in lines if line["event"] == "stalled"]
    assert any(name.endswith(":poll loop") for name in line["tasks"])
    assert "post about nothing" not in str(lines)
