"""Puts vLLM under a supervisor, and keeps one fork server across rebuilds. Closing the judge stops the server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_guard.judging.engine import core_process
from stream_guard.judging.engine.arguments import prepare_environment, require_vllm
from stream_guard.judging.engine.client import in_thread
from stream_guard.judging.engine.supervisor import SupervisedJudge

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_guard.core.clock import Clock
    from stream_guard.judging.delivery import Pending
    from stream_guard.judging.engine.judge import VllmJudge
    from stream_guard.judging.engine.supervisor import EngineState
    from stream_guard.judging.engine.waiting import Waiting
    from stream_guard.settings import EngineSettings
    from stream_guard.telemetry.metrics import Metrics


def supervised_vllm(
    settings: EngineSettings,
    *,
    clock: Clock,
    metrics: Metrics,
    changed: Callable[[EngineState], None],
    make: Callable[[EngineSettings], VllmJudge],
    waiting: Waiting[Pending] | None = None,
) -> SupervisedJudge:
    """Return a judge that rebuilds its engine.

    Args:
        settings: the section.
        clock: as for :class:`~stream_guard.judging.engine.supervisor.SupervisedJudge`.
        metrics: the same.
        changed: the same.
        make: makes the judge of one engine, not started.
        waiting: as for the supervised judge.
    """
    held = False

    def make_held() -> VllmJudge:
        # Otherwise the engine stops the fork server when it closes, and the next engine imports vLLM again.
        nonlocal held
        if not held:
            require_vllm()
            prepare_environment(settings)
            held = core_process.start_server()
        return make(settings)

    async def closed() -> None:
        nonlocal held
        if held:
            held = False
            await in_thread(core_process.stop_server)

    return SupervisedJudge(
        make_held,
        settings,
        clock=clock,
        metrics=metrics,
        changed=changed,
        closed=closed,
        waiting=waiting,
    )
