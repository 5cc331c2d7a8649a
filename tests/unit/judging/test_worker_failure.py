"""What fails in vLLM's worker after the start names the setting that helps, as a failed start does."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from stream_guard.core.errors import EngineError
from stream_guard.judging.engine.client import VllmClient
from stream_guard.judging.engine.start_message import start_message
from stream_guard.settings import EngineSettings


class DeadError(Exception):
    """As vLLM's ``EngineDeadError``."""


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> VllmClient:
    """A client whose engine was started."""
    monkeypatch.setitem(
        sys.modules, "vllm.v1.engine.exceptions", SimpleNamespace(EngineDeadError=DeadError)
    )
    return VllmClient(EngineSettings())


def failing(client: VllmClient, error: Exception) -> None:
    async def fail(*_: object, **_named: object) -> None:
        raise error

    client._engine = SimpleNamespace(collective_rpc=fail)  # type: ignore[assignment]


async def test_a_step_without_memory_names_the_settings(client: VllmClient) -> None:
    says = "Call to collective_rpc method failed: CUDA out of memory.\nTried to allocate 2.00 GiB."
    failing(client, Exception(says))
    with pytest.raises(EngineError) as caught:
        await client.try_step(8_192)
    told = str(caught.value)
    assert "CUDA out of memory. Tried to allocate 2.00 GiB.;" in told
    for setting in ("gpu_memory_utilization", "kv_cache_memory_bytes", "max_num_batched_tokens"):
        assert f"engine.{setting}" in told


async def test_another_failure_names_where_more_is_said(client: VllmClient) -> None:
    failing(client, Exception("Call to collective_rpc method failed: no such kernel"))
    with pytest.raises(EngineError, match=r"no such kernel; VLLM_LOGGING_LEVEL=INFO"):
        await client.compilations()


async def test_a_dead_engine_is_called_dead(client: VllmClient) -> None:
    failing(client, DeadError("dead"))
    with pytest.raises(EngineError, match="the engine's process died"):
        await client.try_step(64)


async def test_without_an_engine_nothing_is_called(client: VllmClient) -> None:
    with pytest.raises(EngineError, match="the engine is not running"):
        await client.try_step(64)


def test_a_start_without_memory_names_the_settings() -> None:
    told = start_message(ValueError("No available memory for the cache blocks."))
    assert told == (
        "vLLM did not start (ValueError): No available memory for the cache blocks.; "
        "lower engine.gpu_memory_utilization, or set engine.kv_cache_memory_bytes"
    )
