"""All sources of the console, started and stopped together."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stream_guard.console.sources.audit import Audit, AuditKafka
from stream_guard.console.sources.bench import Bench
from stream_guard.console.sources.board import Board
from stream_guard.console.sources.dead_letters import DeadLetters, LettersKafka
from stream_guard.console.sources.faults import Faults
from stream_guard.console.sources.issuer import Issuer
from stream_guard.console.sources.replicas import Replicas
from stream_guard.console.sources.review import ReviewDatabase, ReviewKafka, ReviewTopics
from stream_guard.console.sources.verdicts import Verdicts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_guard.console.sources.state import Source, SourceState
    from stream_guard.core.clock import Clock
    from stream_guard.settings import Settings

__all__ = ["Sources", "make_sources"]


@dataclass(slots=True, frozen=True)
class Sources:
    """The sources.

    Attributes:
        issuer: where people sign in.
        replicas: the metrics of the running service.
        board: the figures of the page Now, made of these metrics.
        faults: what is wrong by these metrics.
        verdicts: the topic of verdicts.
        bench: where drafts are tried and measured.
        review_database: the review queue.
        review_topics: what the queue is made of, and where decisions go.
        dead_letters: what could not be judged, and replays.
        audit: what people decided, breakers, and versions of policies.
    """

    issuer: Issuer
    replicas: Replicas
    board: Board
    faults: Faults
    verdicts: Verdicts
    bench: Bench
    review_database: ReviewDatabase
    review_topics: ReviewTopics
    dead_letters: DeadLetters
    audit: Audit

    def states(self) -> list[SourceState]:
        """Return how each source is now."""
        return [source.state for source in self._all()]

    async def run(self) -> None:
        """Read all sources until cancelled. Raises what is a bug of theirs; a source that is away is none."""
        async with asyncio.TaskGroup() as group:
            for source in self._all():
                group.create_task(_run(source))

    async def close(self) -> None:
        """Close their connections."""
        async with contextlib.AsyncExitStack() as stack:
            for source in self._all():
                stack.push_async_callback(source.close)

    def _all(self) -> Iterator[Source]:
        yield self.issuer
        yield self.replicas
        yield self.verdicts
        yield self.bench
        yield self.review_database
        yield self.review_topics
        yield self.dead_letters
        yield self.audit.people
        yield self.audit.breakers
        yield self.audit.versions


async def _run(source: Source) -> None:
    """Run a source; a group of tasks would not notice one that ends by a cancellation that nobody asked for."""
    task = asyncio.current_task()
    try:
        await source.run()
    except asyncio.CancelledError as error:
        if task is not None and task.cancelling():
            raise
        raise RuntimeError(f"the source {source.state.name!r} was cancelled from within") from error


def make_sources(settings: Settings, clock: Clock) -> Sources:
    """Return the sources of these settings, not started."""
    database = ReviewDatabase(settings, clock)
    replicas = Replicas(settings.console, clock)
    return Sources(
        issuer=Issuer(settings.console.oidc, clock),
        replicas=replicas,
        board=Board(replicas),
        faults=Faults(replicas, clock),
        verdicts=Verdicts(settings, clock),
        bench=Bench(settings, clock),
        review_database=database,
        review_topics=ReviewTopics(settings, clock, database, ReviewKafka.of(settings)),
        dead_letters=DeadLetters(settings, clock, LettersKafka.of(settings)),
        audit=Audit(settings, clock, AuditKafka.of(settings)),
    )
