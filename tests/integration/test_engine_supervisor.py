"""The real vLLM engine under its supervisor: rebuilt in the same process, again and again, and closed in between."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry

from stream_guard.core.clock import SystemClock
from stream_guard.judging.engine.judge import VllmJudge
from stream_guard.judging.engine.supervised import supervised_vllm
from stream_guard.judging.families.registry import load_family
from stream_guard.telemetry.metrics import Metrics
from tests.integration.harness import HANG_S
from tests.integration.test_engine import (
    Collector,
    core_process,
    engine_processes,
    engine_settings,
    judged,
    policy_set,
    requests,
)

if TYPE_CHECKING:
    from pathlib import Path

    from stream_guard.judging.engine.supervisor import EngineState

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"
)


class Watched:
    """What the supervisor said of its engine."""

    def __init__(self) -> None:
        self.states: list[EngineState] = []
        self.metrics = Metrics(CollectorRegistry())
        self.came = asyncio.Event()

    def changed(self, state: EngineState) -> None:
        self.states.append(state)
        self.came.set()

    async def until(self, *, ready: bool, rebuilds: int) -> None:
        """Return once the last thing said is this."""
        async with asyncio.timeout(HANG_S):
            while not self.states or self.states[-1][:2] != (ready, rebuilds):
                self.came.clear()
                await self.came.wait()

    def rebuilds(self, cause: str) -> float:
        value = self.metrics.registry.get_sample_value(
            "stream_guard_engine_rebuilds_total", {"cause": cause}
        )
        return value or 0.0


async def test_killed_again_and_again_it_is_rebuilt_in_one_process_and_nothing_is_left(
    random_model: Path,
) -> None:
    watched = Watched()
    settings = engine_settings(random_model, rebuild_backoff_s_min=0)
    judge = supervised_vllm(
        settings,
        clock=SystemClock(),
        metrics=watched.metrics,
        changed=watched.changed,
        make=lambda settings: VllmJudge(settings, load_family),
    )
    await judge.start(policy_set())
    (server,) = [process for process in engine_processes() if process.children()]
    await judged(judge, requests(3))

    collector = Collector()
    judge.submit(requests(12), collector.deliver)
    core_process().kill()
    got = await collector.wait(12)
    assert all(judgement.answer is not None for judgement in got)
    assert len({judgement.request.id for judgement in got}) == 12

    core_process().kill()
    await watched.until(ready=True, rebuilds=2)
    await judged(judge, requests(3))
    assert server.is_running(), "the fork server is kept over rebuilds"
    assert watched.rebuilds("died") == 2

    core_process().kill()
    await watched.until(ready=False, rebuilds=2)
    judge.submit(requests(3), collector.deliver)
    await judge.close()  # in the midst of the third
    assert len(collector.got) == 12
    assert engine_processes() == []
