"""Puts the parts of escalations together, for one service; with neither topic set there are none."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from stream_guard.core.clock import SystemClock
from stream_guard.kafka.group_position import GroupPosition
from stream_guard.stream.escalated import EscalatedInput, LateInput
from stream_guard.stream.escalation import Escalations
from stream_guard.stream.late_source import LateSource

if TYPE_CHECKING:
    from stream_guard.kafka.group_position import Reading
    from stream_guard.service.health.state import Health
    from stream_guard.settings import Settings
    from stream_guard.stream.escalated import SideInput
    from stream_guard.stream.ports import Source
    from stream_guard.telemetry.metrics import Metrics

__all__ = ["EscalationParts"]


class EscalationParts:
    """The escalations of one service.

    Args:
        settings: all sections; ``cascade`` and ``kafka`` are used.
        health: shows how far behind the other deployment is.
        metrics: shows the same.

    Attributes:
        escalations: for the pipeline; None where there are none.
        inputs: the topics of escalations that are read.
    """

    def __init__(self, settings: Settings, health: Health, metrics: Metrics) -> None:
        cascade = settings.cascade
        self.escalations: Escalations | None = None
        self.inputs: list[SideInput] = []
        self._health = health
        self._metrics = metrics
        self._clock = SystemClock()
        self._group: GroupPosition | None = None
        self._delay_s: float | None = None
        self._topic = cascade.escalation_topic
        self._group_id = cascade.escalation_group
        if self._topic is None and cascade.escalated_topic is None:
            return
        self.escalations = Escalations(settings, metrics)
        if cascade.escalated_topic is not None:
            self.inputs.append(EscalatedInput(settings, cascade.escalated_topic))
        if self._topic is None or self._group_id is None:
            return
        self._group = GroupPosition(
            settings.kafka,
            settings.delivery,
            self._topic,
            self._group_id,
            show=self._show,
            clock=self._clock,
        )
        if cascade.escalation_deadline_s is not None:
            self._delay_s = cascade.escalation_deadline_s
            self.inputs.append(LateInput(self._topic, self._group.position))

    def before(self, source: Source) -> Source:
        """Return a source that holds escalations back until their deadline, in front of this one."""
        group = self._group
        if self._topic is None or self._delay_s is None or group is None:
            return source
        return LateSource(source, self._topic, self._delay_s, self._clock, lambda: group.asked)

    def _show(self, reading: Reading) -> None:
        wait_s = reading.wait_s(self._clock.monotonic_s())
        self._metrics.escalation_lag.set(reading.lag_records or 0)
        self._metrics.escalation_wait.set(wait_s)
        self._health.details["escalations"] = {
            "topic": self._topic,
            "group": self._group_id,
            "lag_records": reading.lag_records,
            "wait_s": round(wait_s, 1),
        }

    async def watch(self) -> BaseException:
        """Follow the other deployment; return the error after which it cannot be followed any more."""
        if self._group is None:
            await asyncio.Event().wait()
        assert self._group is not None, "the event is never set"
        return await self._group.run()

    async def close(self) -> None:
        """Close the connection."""
        if self._group is not None:
            await self._group.close()
