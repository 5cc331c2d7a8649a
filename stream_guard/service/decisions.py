"""Puts the parts of people's decisions together; with ``decisions.enabled = false`` there are none."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from stream_guard.core.clock import SystemClock
from stream_guard.judging.human.judge import HumanFirst
from stream_guard.judging.human.table import DecisionTable
from stream_guard.kafka.decision_feed import DecisionFeed
from stream_guard.stream.decision_lane import DecisionLane, DecisionReader
from stream_guard.stream.exactly_once import TransactionalPublisher
from stream_guard.stream.person_wins import LateAnswers, PersonWins

if TYPE_CHECKING:
    from stream_guard.judging.contract import Judge
    from stream_guard.records.decision import Decision
    from stream_guard.service.health.state import Health
    from stream_guard.settings import Settings
    from stream_guard.stream.breaker.gate import ActionGate
    from stream_guard.stream.outgoing import OutgoingBuilder
    from stream_guard.stream.ports import Publisher
    from stream_guard.stream.tracing.record_tracer import Tracing
    from stream_guard.telemetry.metrics import Metrics


class Decisions:
    """The decisions of people, for one service.

    Args:
        settings: all sections.
        gate: judges the rest, and limits actions; a ``breaker_reset`` closes its breakers.
        health: shows how many decisions are known.
        metrics, tracing: the parts.

    Attributes:
        judge: asks people's decisions first.
        lane: for the pipeline; None where decisions are not read.
    """

    def __init__(
        self,
        settings: Settings,
        gate: ActionGate,
        health: Health,
        metrics: Metrics,
        tracing: Tracing,
    ) -> None:
        self.judge: Judge = gate
        self.lane: DecisionLane | None = None
        self._feed: DecisionFeed | None = None
        self._late: LateAnswers | None = None
        if not settings.decisions.enabled:
            return
        clock = SystemClock()
        reader = DecisionReader(settings)
        self._table = table = DecisionTable(settings.decisions.memory_bytes_max, reader.read_later)
        self.judge = HumanFirst(gate, table, clock=clock, metrics=metrics)
        self.lane = DecisionLane(settings, table, metrics)
        self._late = LateAnswers(table, settings.kafka, tracing, clock)
        show = partial(health.details.__setitem__, "decisions")
        self._feed = DecisionFeed(
            settings,
            reader,
            table,
            metrics,
            show=show,
            reset=partial(close_breakers, gate),
        )

    def before(self, publisher: Publisher) -> Publisher:
        """Return a publisher that looks for decisions at the last moment, in front of this one."""
        if self._late is None:
            return publisher
        if isinstance(publisher, TransactionalPublisher):
            publisher.replace = self._late.replace
            return publisher
        return PersonWins(publisher, self._late)

    def write_like(self, build: OutgoingBuilder) -> None:
        """Write people's answers in the format of this builder."""
        if self._late is not None:
            self._late.build.avro = build.avro

    async def load(self) -> None:
        """Read all decisions. Raises BrokerError."""
        if self._feed is not None:
            await self._feed.load()

    async def watch(self) -> BaseException:
        """Follow the decisions; return the error after which they cannot be read any more."""
        if self._feed is None:
            await asyncio.Event().wait()
        assert self._feed is not None, "the event is never set"
        return await self._feed.watch()

    async def close(self) -> None:
        """Close the connection."""
        if self._feed is not None:
            await self._feed.close()
            self._table.close()


def close_breakers(gate: ActionGate, decision: Decision) -> None:
    """Close the breakers that a ``breaker_reset`` names."""
    breaker = decision.breaker
    assert breaker is not None, "only a breaker_reset comes here"
    gate.reset(
        decision.decided_at, action=breaker.action, policy=breaker.policy, tenant=breaker.tenant
    )
