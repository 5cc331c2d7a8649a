"""The real vLLM engine killed, stopped, and killed by one post: rebuilt in the same process, again and again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry

from stream_guard.clock import SystemClock
from stream_guard.engine.supervised_vllm import supervised_vllm
from stream_guard.errors import EngineKilledError
from stream_guard.telemetry.metrics import Metrics
from tests.integration import killing_tokens
from tests.integration.test_engine import (
    Collector,
    Scripted,
    core_process,
    engine_processes,
    engine_settings,
    judged,
    policy_set,
    requests,
)

if TYPE_CHECKING:
    from pathlib import Path

    from stream_guard.engine.supervisor import EngineState

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"
)
DEADLY = " KILLTHEENGINE"


class Watched:
    """What the supervisor said of its engine."""

    def __init__(self) -> None:
        self.states: list[EngineState] = []
        self.metrics = Metrics(CollectorRegistry())
        self.came = asyncio.Event()

    def changed(self, state: EngineState) -> None:
        self.states.append(state)
        self.came.set()

    async def until_ready(self, rebuilds: int) -> None:
        async with asyncio.timeout(120):
            while not (self.states[-1].ready and self.states[-1].rebuilds == rebuilds):
                self.came.clear()
                await self.came.wait()

    def rebuilds(self, cause: str) -> float:
        value = self.metrics.registry.get_sample_value(
            "stream_guard_engine_rebuilds_total", {"cause": cause}
        )
        return value or 0.0


async def test_killed_stopped_and_killed_by_a_post_it_judges_every_other(
    random_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched()
    settings = engine_settings(
        random_model,
        request_timeout_s=20,
        hang_timeout_s=21,
        rebuild_backoff_s_min=0,
        extra={
            "logits_processors": [
                "tests.integration.scripted_tokens:ScriptedTokens",
                "tests.integration.killing_tokens:KillingTokens",
            ],
            "async_scheduling": False,
        },
    )
    judge = supervised_vllm(
        settings,
        clock=SystemClock(),
        metrics=watched.metrics,
        changed=watched.changed,
        make=Scripted,
    )
    monkeypatch.setenv(killing_tokens.VARIABLE, "1,2,3,4,5,6,7")  # in no post
    await judge.start(policy_set())
    (server,) = [p for p in engine_processes() if p.children()]
    await judged(judge, requests(3))

    collector = Collector()
    judge.submit(requests(12), collector.deliver)
    core_process().kill()
    assert len(await collector.wait(12)) == 12
    assert watched.rebuilds("died") == 1

    core = core_process()
    core.suspend()
    # Idle, nothing is expected of it; what hangs is found by its posts.
    await judged(judge, requests(12))
    assert watched.rebuilds("hung") + watched.rebuilds("died") == 2
    assert not core.is_running()

    # From the next engine on, one post is deadly.
    tokens = judge._inner._tokenizer.encode(DEADLY)  # type: ignore[union-attr]
    monkeypatch.setenv(killing_tokens.VARIABLE, ",".join(map(str, tokens)))
    core_process().kill()
    await watched.until_ready(rebuilds=3)
    deadly, neighbours = requests(1, text=f"please{DEADLY} now"), requests(5)
    wanted = [*neighbours[:3], *deadly, *neighbours[3:]]
    got = {j.request.id: j for j in await judged(judge, wanted)}
    (error,) = [j.error for j in got.values() if j.error is not None]
    assert isinstance(error, EngineKilledError)
    assert got[deadly[0].id].error is error
    assert all(got[request.id].answer is not None for request in neighbours)
    # Three for our own doing, and two for the post's: once with the others, once alone.
    assert len([state for state in watched.states if not state.ready]) == 5

    assert server.is_running(), "the fork server is kept over rebuilds"
    await judge.close()
    assert engine_processes() == []
