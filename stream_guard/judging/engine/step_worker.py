"""Runs inside vLLM's worker process: tries a step of a given length, and counts what is compiled there.

vLLM mixes :class:`StepWorker` into its worker (``worker_extension_cls``). Its methods are called through the engine.
Kernels of Triton and graphs of torch.compile are counted; compilation in the start of vLLM itself is not.
"""

# ruff: noqa: ANN401 - objects of vLLM, Triton and torch

from __future__ import annotations

import time
from typing import Any, ClassVar

__all__ = ["StepWorker"]


class _Counter:
    """Counts compilations in this process once it is installed. It replaces no hook: others are called as before."""

    def __init__(self) -> None:
        self.kernels = 0
        self.graphs = 0
        self.seconds = 0.0
        self._began_s: float | None = None
        self._install_triton()
        self._install_dynamo()

    def _install_triton(self) -> None:
        try:
            from triton import knobs
        except ImportError:  # builds without Triton compile no kernels
            return
        runtime: Any = knobs.runtime
        before, after = runtime.jit_cache_hook, runtime.jit_post_compile_hook

        def begin(**what: Any) -> Any:
            self._began_s = time.monotonic()
            return None if before is None else before(**what)

        def end(**what: Any) -> Any:
            self.kernels += 1
            if self._began_s is not None:
                self.seconds += time.monotonic() - self._began_s
                self._began_s = None
            return None if after is None else after(**what)

        runtime.jit_cache_hook, runtime.jit_post_compile_hook = begin, end

    def _install_dynamo(self) -> None:
        from torch._dynamo.callback import callback_handler

        began_s: list[float] = []
        callback_handler.register_start_callback(lambda _: began_s.append(time.monotonic()))

        def end(_: Any) -> None:
            self.graphs += 1
            self.seconds += time.monotonic() - began_s.pop() if began_s else 0.0

        callback_handler.register_end_callback(end)


class StepWorker:
    """What the engine's worker can do besides vLLM's own work. Its names must not be those of vLLM's worker."""

    model_runner: Any
    _stream_guard_counter: ClassVar[_Counter | None] = None

    def stream_guard_try_step(self, tokens: int) -> None:
        """Run the model once on so many tokens, as a step of this length does, and ignore what comes out."""
        self.model_runner._dummy_run(tokens, skip_eplb=True)  # noqa: SLF001 - vLLM's own warm-up calls it so

    def stream_guard_compilations(self) -> tuple[int, int, float]:
        """Return kernels, graphs, and seconds of compilation since the first call."""
        if StepWorker._stream_guard_counter is None:
            StepWorker._stream_guard_counter = _Counter()
        counter = StepWorker._stream_guard_counter
        return counter.kernels, counter.graphs, counter.seconds
