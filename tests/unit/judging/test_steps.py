"""Steps of every length are tried at the start, and what is compiled later is counted and told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from stream_guard.core.errors import EngineError
from stream_guard.judging.engine import steps
from stream_guard.judging.engine.step_worker import StepWorker
from stream_guard.judging.engine.steps import Compilations, StepLimits, lengths_of, warm_steps
from tests.hang import HANG_S


@pytest.mark.parametrize(
    ("captured", "longest", "lengths"),
    [
        (512, 640, [640, 608, 576, 544]),
        (512, 512, []),
        (512, 256, []),
        (500, 530, [530, 512]),
        (0, 70, [70, 64, 32]),
    ],
)
def test_each_kernel_that_is_not_captured_gets_one_length(
    captured: int, longest: int, lengths: list[int]
) -> None:
    assert lengths_of(StepLimits(captured, longest)) == lengths


@pytest.mark.parametrize("captured", [0, 1, 31, 32, 33, 511, 512])
def test_no_step_needs_a_kernel_that_was_not_tried(captured: int) -> None:
    tried = {-(-length // 32) for length in lengths_of(StepLimits(captured, 1_000))}
    assert tried == {-(-length // 32) for length in range(captured + 1, 1_001)}


class Engine:
    """An engine that compiles a kernel for each new length."""

    step_limits = StepLimits(0, 128)

    def __init__(self) -> None:
        self.tried: list[int] = []
        self.counts = Compilations()
        self.asked = 0
        self.dead = False
        self.changed = asyncio.Event()

    async def try_step(self, tokens: int) -> None:
        self.tried.append(tokens)
        self.counts = Compilations(self.counts.kernels + 1, self.counts.graphs, 1.0)

    async def compilations(self) -> Compilations:
        self.asked += 1
        self.changed.set()
        if self.dead:
            message = "dead"
            raise EngineError(message)
        return self.counts


async def test_the_warm_up_tries_all_lengths_and_logs_what_it_compiled() -> None:
    engine = Engine()
    with capture_logs() as lines:
        await warm_steps(engine)
    assert engine.tried == [128, 96, 64, 32]
    assert [(line["event"], line["tried"], line["of"], line["kernels"]) for line in lines] == [
        ("warming_up_steps", 4, 4, 4)
    ]


async def test_what_is_compiled_while_serving_is_told_until_the_engine_dies() -> None:
    engine, told = Engine(), list[Compilations]()
    engine.counts = Compilations(7, 1, 3.0)
    async with asyncio.timeout(HANG_S):
        with capture_logs() as lines:
            task = asyncio.create_task(steps.watch(engine, told.append, every_s=0))
            while engine.asked < 3:
                engine.changed.clear()
                await engine.changed.wait()
            assert told == []
            engine.counts = Compilations(9, 1, 4.5)
            while not told:
                engine.changed.clear()
                await engine.changed.wait()
            engine.dead = True
            await task
    assert told == [Compilations(2, 0, 1.5)]
    assert [line["event"] for line in lines] == ["compiled_while_serving"]


def test_the_worker_counts_kernels_and_graphs_and_keeps_others_hooks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch
    from triton import knobs

    heard: list[Any] = []
    runtime: Any = knobs.runtime
    monkeypatch.setattr(runtime, "jit_cache_hook", None)
    monkeypatch.setattr(runtime, "jit_post_compile_hook", lambda **what: heard.append(what))
    monkeypatch.setattr(StepWorker, "_stream_guard_counter", None)
    worker = StepWorker()
    assert worker.stream_guard_compilations() == (0, 0, 0.0)
    # As Triton calls them around each compilation (triton/runtime/jit.py): there is no card to compile for.
    for _ in range(2):
        assert runtime.jit_cache_hook(key="k", fn=None) is None
        runtime.jit_post_compile_hook(key="k", fn=None)
    assert heard == [{"key": "k", "fn": None}] * 2
    compiled = torch.compile(lambda x: x + 1, backend="eager")
    compiled(torch.zeros(3))
    compiled(torch.zeros(3))
    kernels, graphs, seconds = worker.stream_guard_compilations()
    assert (kernels, graphs) == (2, 1)
    assert seconds > 0


def test_a_step_is_tried_as_vllms_own_warm_up_does() -> None:
    tried: list[tuple[int, dict[str, bool]]] = []

    class Runner:
        def _dummy_run(self, tokens: int, **how: bool) -> None:
            tried.append((tokens, how))

    worker = StepWorker()
    worker.model_runner = Runner()
    worker.stream_guard_try_step(96)
    assert tried == [(96, {"skip_eplb": True})]
