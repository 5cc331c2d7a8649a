"""Puts the breaker together: the gate around the judge, and its topic."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from stream_guard.kafka.breaker_topic import KafkaBreakerLog
from stream_guard.stream.breaker.gate import ActionGate

if TYPE_CHECKING:
    from stream_guard.core.clock import Clock
    from stream_guard.judging.contract import Judge
    from stream_guard.service.health.state import Health
    from stream_guard.settings import Settings
    from stream_guard.telemetry.metrics import Metrics


def make_gate(
    settings: Settings, judge: Judge, clock: Clock, metrics: Metrics, health: Health
) -> ActionGate:
    """Return the gate around a judge. It opens no topic unless there are limits.

    Args:
        settings: the sections ``actions``, ``kafka`` and ``delivery``.
        judge: the cascade.
        clock: for windows and deadlines.
        metrics: counts trips and limited actions.
        health: shows open breakers.
    """
    return ActionGate(
        judge,
        settings.actions,
        make_log=partial(KafkaBreakerLog, settings.kafka, settings.delivery),
        clock=clock,
        metrics=metrics,
        show=partial(health.details.__setitem__, "breaker"),
    )
