"""Steps of every length by the real vLLM engine, and what its worker says that it compiled."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from stream_guard.judging.engine.judge import VllmJudge
from stream_guard.judging.engine.steps import Compilations, StepLimits
from stream_guard.judging.families.registry import load_family
from stream_guard.policies.policy import PolicySet
from stream_guard.settings import EngineSettings

pytestmark = [
    # vLLM and torch warn of themselves while they are imported.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


async def test_all_lengths_are_tried_before_the_engine_is_ready() -> None:
    settings = EngineSettings(
        model="demo",
        warm_steps=True,
        max_model_len=512,
        max_num_seqs=4,
        max_num_batched_tokens=100,
        kv_cache_memory_bytes=32 << 20,
    )
    judge = VllmJudge(settings, load_family)
    try:
        with capture_logs() as lines:
            await judge.start(PolicySet({}))
        # The CPU captures nothing and compiles nothing.
        assert judge._client.step_limits == StepLimits(0, 100)
        assert await judge._client.compilations() == Compilations()
    finally:
        await judge.close()
    warmed = [line for line in lines if line["event"] == "warming_up_steps"]
    assert (warmed[-1]["tried"], warmed[-1]["of"]) == (4, 4)
