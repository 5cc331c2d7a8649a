"""vLLM under a supervisor: the parts put together, and the fork server kept over rebuilds.

What it must never do: leave the fork server running once the judge is closed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_guard.judging.engine import core_process
from stream_guard.judging.engine.arguments import prepare_environment, require_vllm
from stream_guard.judging.engine.client import in_thread
from stream_guard.judging.engine.judge import VllmJudge
from stream_guard.judging.engine.supervisor import SupervisedJudge

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_guard.core.clock import Clock
    from stream_guard.judging.engine.supervisor import EngineState
    from stream_guard.settings import EngineSettings
    from stream_guard.telemetry.metrics import Metrics


def supervised_vllm(
    settings: EngineSettings,
    *,
    clock: Clock,
    metrics: Metrics,
    changed: Callable[[EngineState], None],
    make: Callable[[EngineSettings], VllmJudge] = VllmJudge,
) -> SupervisedJudge:
    """Return a judge that rebuilds its engine; see :class:`~stream_guard.judging.engine.supervisor.SupervisedJudge`."""
    held = False

    def make_held() -> VllmJudge:
        # An engine alone stops the fork server as it closes, and the next would import vLLM once more.
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
        make_held, settings, clock=clock, metrics=metrics, changed=changed, closed=closed
    )
