"""Builds the judge that the settings describe: the model's family, the engine, its supervisor and the tiers.

It imports an engine only if the settings ask for it.
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
    from stream_guard.judging.delivery import Pending
    from stream_guard.judging.engine.steps import Compilations
    from stream_guard.judging.engine.supervisor import EngineState
    from stream_guard.judging.engine.waiting import Waiting
    from stream_guard.judging.families.family import Exchange
    from stream_guard.judging.tiers.ladder import Rung
    from stream_guard.policies.policy import Policy
    from stream_guard.settings import EngineSettings, Settings, TelemetrySettings
    from stream_guard.telemetry.generations import GenerationTracer
    from stream_guard.telemetry.metrics import Metrics

__all__ = ["make_cascade", "make_judge", "make_lasting_judge"]


def make_judge(
    settings: EngineSettings, rungs: Callable[[Policy], Sequence[Rung]] | None = None
) -> Judge:
    """Return the judge that ``engine.kind`` names.

    Args:
        settings: the section.
        rungs: of the ladder, for each policy; by default the policy's own alone.

    Raises:
        EngineError: vLLM is not installed.
    """
    if settings.kind == "scripted":
        from stream_guard.judging.engine.scripted import ScriptedJudge

        return ScriptedJudge(settings.scripted_violates)
    from stream_guard.judging.engine.arguments import require_vllm
    from stream_guard.judging.engine.judge import VllmJudge
    from stream_guard.judging.families.registry import load_family

    require_vllm()  # fail now, and not after minutes of joining the consumer group
    return VllmJudge(settings, load_family, rungs)


def make_lasting_judge(
    settings: Settings,
    clock: Clock,
    metrics: Metrics,
    changed: Callable[[EngineState], None],
    listen: Callable[[Exchange], None] | None = None,
    tracing: GenerationTracer | None = None,
) -> Judge:
    """Return the same judge, under a supervisor if its engine can die.

    Args:
        settings: the sections ``engine``, ``batching``, ``cascade``, ``kafka``, ``lanes`` and
            ``telemetry``.
        clock: for back-off and timeouts.
        metrics: counts rebuilds.
        changed: called when the engine goes down or is ready again.
        listen: called with each prompt and completion, or None.
        tracing: makes the spans of the engine's calls, or None.

    Raises:
        EngineError: as :func:`make_judge`.
    """
    if settings.engine.kind == "scripted":
        return make_judge(settings.engine)
    from stream_guard.judging.engine.arguments import require_vllm
    from stream_guard.judging.engine.fair_waiting import FairWaiting
    from stream_guard.judging.engine.judge import Observers, VllmJudge
    from stream_guard.judging.engine.prefixes import PrefixCache
    from stream_guard.judging.engine.supervised import supervised_vllm
    from stream_guard.judging.engine.warm_first import WarmFirst
    from stream_guard.judging.families.registry import load_family

    require_vllm()
    prefixes = PrefixCache()

    def queue_of_a_tenant() -> Waiting[Pending]:
        return WarmFirst(prefixes, settings.batching.prefix_wait_s, settings.engine.requests_max)

    waiting: Waiting[Pending] = FairWaiting(
        queue_of_a_tenant,
        tenants_max=settings.lanes.tenant_queues_max,
        rotate_s=settings.lanes.tenant_hash_s,
    )
    keep_thoughts = settings.kafka.reasoning_topic is not None
    make = partial(
        VllmJudge,
        load_family=load_family,
        rungs=Ladder(settings.cascade).rungs,
        observers=Observers(keep_thoughts, listen, tracing, partial(_count_compilations, metrics)),
        prefixes=prefixes,
    )
    engine = settings.engine.model_copy(
        update={"extra": {**_telemetry_arguments(settings.telemetry), **settings.engine.extra}}
    )
    return supervised_vllm(
        engine, clock=clock, metrics=metrics, changed=changed, make=make, waiting=waiting
    )


def _count_compilations(metrics: Metrics, new: Compilations) -> None:
    metrics.engine_compilations.labels("kernel").inc(new.kernels)
    metrics.engine_compilations.labels("graph").inc(new.graphs)


def _telemetry_arguments(settings: TelemetrySettings) -> dict[str, Any]:
    """Return vLLM's arguments for its traces and metrics; ``engine.extra`` overrides them."""
    arguments: dict[str, Any] = {}
    if settings.otlp_endpoint is not None and settings.trace_engine:
        # Our exporter sends its spans (Tracing.lend); without an endpoint vLLM makes none.
        arguments["otlp_traces_endpoint"] = settings.otlp_endpoint
    if settings.engine_metrics:
        arguments["disable_log_stats"] = False
    return arguments


def make_cascade(settings: Settings, clock: Clock, metrics: Metrics, inner: Judge) -> Cascade:
    """Return the tiers that the settings name, with this judge as the last.

    Raises:
        SettingsError: a tier's settings are invalid.
    """
    metrics.tenant_tokens.show(settings.lanes.tenants_shown)
    return Cascade(
        inner,
        make_tiers(settings),
        settings.cascade,
        clock=clock,
        metrics=metrics,
        delay_s_max=settings.delay_s,
    )
