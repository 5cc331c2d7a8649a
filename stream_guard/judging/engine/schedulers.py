"""vLLM's schedulers with held outputs. Only vLLM imports this module, by name, where it starts."""

from __future__ import annotations

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler

from stream_guard.judging.engine.held_outputs import HeldOutputs

__all__ = ["HeldAsyncScheduler", "HeldScheduler"]


class HeldScheduler(HeldOutputs, Scheduler):
    """Where a step begins after the last one has ended, as on a CPU."""


class HeldAsyncScheduler(HeldOutputs, AsyncScheduler):
    """Where a step begins while the last one runs, as on a GPU."""
