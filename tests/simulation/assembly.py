"""A poll loop and its pipeline over parts in memory, put together as the program does it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from stream_guard.records.post import PostParser
from stream_guard.settings import TelemetrySettings
from stream_guard.stream.delivery import AtLeastOnce, ExactlyOnce
from stream_guard.stream.exactly_once import TransactionalPublisher
from stream_guard.stream.pipeline import Pipeline
from stream_guard.stream.poll_loop import PollLoop
from stream_guard.stream.tracing.record_tracer import Tracing

if TYPE_CHECKING:
    from stream_guard.core.clock import Clock
    from stream_guard.judging.contract import Judge
    from stream_guard.policies.policy import PolicySet
    from stream_guard.settings import Settings
    from stream_guard.stream.ports import Publisher, Source
    from stream_guard.telemetry.metrics import Metrics


def make_poll_loop(
    settings: Settings,
    policies: PolicySet,
    *,
    source: Source,
    judge: Judge,
    publisher: Publisher,
    clock: Clock,
    metrics: Metrics,
    parser: PostParser | None = None,
) -> PollLoop:
    """Return a poll loop that takes records from its first assignment on; a transactional publisher commits as well."""
    pipeline = Pipeline(
        settings,
        policies,
        parser=parser or PostParser(settings.post),
        judge=judge,
        publisher=publisher,
        clock=clock,
        metrics=metrics,
        tracing=Tracing(TelemetrySettings(), group="g"),
    )
    delivery = (
        ExactlyOnce(source, publisher)
        if isinstance(publisher, TransactionalPublisher)
        else AtLeastOnce(source, publisher, settings.delivery, metrics)
    )
    poll_loop = PollLoop(
        source, pipeline, delivery, settings.delivery, clock=clock, metrics=metrics
    )
    poll_loop.release()
    return poll_loop


async def take_up(poll_loop: PollLoop) -> None:
    """Begin the epochs of what was assigned, as the loop does between two polls."""
    await asyncio.gather(*{*poll_loop._rewinding.values()})
    poll_loop._seek_rewound()
