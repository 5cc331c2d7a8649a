"""A consumer and its pipeline over parts in memory, put together as the program does it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_guard.records.post import PostParser
from stream_guard.settings import TelemetrySettings
from stream_guard.stream.exactly_once import TransactionalPublisher
from stream_guard.stream.pipeline import Pipeline
from stream_guard.stream.poll_loop import Consumer
from stream_guard.stream.tracing.record_tracer import Tracing

if TYPE_CHECKING:
    from stream_guard.core.clock import Clock
    from stream_guard.judging.contract import Judge
    from stream_guard.policies.policy import PolicySet
    from stream_guard.settings import Settings
    from stream_guard.stream.ports import Publisher, Source
    from stream_guard.telemetry.metrics import Metrics


def make_consumer(
    settings: Settings,
    policies: PolicySet,
    *,
    source: Source,
    judge: Judge,
    publisher: Publisher,
    clock: Clock,
    metrics: Metrics,
    parser: PostParser | None = None,
) -> Consumer:
    """Return a consumer that takes records from its first assignment on; a transactional publisher commits as well."""
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
    consumer = Consumer(
        source,
        pipeline,
        settings.delivery,
        clock=clock,
        metrics=metrics,
        transactions=publisher if isinstance(publisher, TransactionalPublisher) else None,
    )
    consumer.release()
    return consumer
