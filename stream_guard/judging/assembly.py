"""Puts the judge together: vLLM or a rule, a supervisor round it, the tiers round that.

What it must never do: import an engine that the settings do not ask for.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from stream_guard.judging.tiers.cascade import Cascade
from stream_guard.judging.tiers.ladder import Ladder
from stream_guard.judging.tiers.registry import make_tiers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stream_guard.core.clock import Clock
    from stream_guard.judging.contract import Judge
    from stream_guard.judging.engine.supervisor import EngineState
    from stream_guard.judging.families.harmony.transcript import Listener
    from stream_guard.judging.tiers.ladder import Rung
    from stream_guard.policies.policy import Policy
    from stream_guard.settings import EngineSettings, Settings, TelemetrySettings
    from stream_guard.telemetry.generations import GenerationTracer
    from stream_guard.telemetry.metrics import Metrics

__all__ = ["make_cascade", "make_judge", "make_lasting_judge"]


def make_judge(
    settings: EngineSettings, rungs: Callable[[Policy], Sequence[Rung]] | None = None
) -> Judge:
    """Return the judge that ``engine.kind`` names, and that can be asked on these rungs.

    Raises:
        EngineError: it is not installed.
    """
    if settings.kind == "scripted":
        from stream_guard.judging.engine.scripted import ScriptedJudge

        return ScriptedJudge()
    from stream_guard.judging.engine.arguments import require_vllm
    from stream_guard.judging.engine.judge import VllmJudge

    require_vllm()  # now, and not after minutes of joining and waiting
    return VllmJudge(settings, rungs)


def make_lasting_judge(
    settings: Settings,
    clock: Clock,
    metrics: Metrics,
    changed: Callable[[EngineState], None],
    listen: Listener | None = None,
    tracing: GenerationTracer | None = None,
) -> Judge:
    """Return the same judge, under a supervisor where its engine can die.

    Args:
        settings: the sections ``engine`` and ``cascade``.
        clock: of backoffs and deadlines.
        metrics: where rebuilds are counted.
        changed: told when the engine goes down or is ready again.
        listen: told of each prompt and completion; by default nobody is.
        tracing: makes the spans of its calls.

    Raises:
        EngineError: as :func:`make_judge`.
    """
    if settings.engine.kind == "scripted":
        return make_judge(settings.engine)
    from stream_guard.judging.engine.arguments import require_vllm
    from stream_guard.judging.engine.judge import VllmJudge
    from stream_guard.judging.engine.supervised import supervised_vllm

    require_vllm()
    make = partial(
        VllmJudge,
        rungs=Ladder(settings.cascade).rungs,
        keep_thoughts=settings.kafka.reasoning_topic is not None,
        listen=listen,
        tracing=tracing,
    )
    engine = settings.engine.model_copy(
        update={"extra": {**_telemetry_arguments(settings.telemetry), **settings.engine.extra}}
    )
    return supervised_vllm(engine, clock=clock, metrics=metrics, changed=changed, make=make)


def _telemetry_arguments(settings: TelemetrySettings) -> dict[str, Any]:
    """Return vLLM's arguments for what it tells of itself; those of ``engine.extra`` win."""
    arguments: dict[str, Any] = {}
    if settings.otlp_endpoint is not None and settings.trace_engine:
        # Its spans leave by our exporter (Tracing.lend); without an endpoint it would make none.
        arguments["otlp_traces_endpoint"] = settings.otlp_endpoint
    if settings.engine_metrics:
        arguments["disable_log_stats"] = False
    return arguments


def make_cascade(settings: Settings, clock: Clock, metrics: Metrics, inner: Judge) -> Cascade:
    """Return the tiers that the settings name, round a judge.

    Raises:
        SettingsError: a tier cannot be made of its settings.
    """
    return Cascade(inner, make_tiers(settings), settings.cascade, clock=clock, metrics=metrics)
