"""The review queue as two sources: its database, and the topics that it is made of.

Both are tried again at ``review.follow_interval_s``. Without ``kafka.review_topic`` there is no queue, and both wait.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakValueDictionary

from stream_guard.console.sources.state import Health, SourceWatch
from stream_guard.core.errors import (
    BrokerError,
    DatabaseError,
    EvidenceError,
    OperatorError,
)
from stream_guard.records.review_audit import build_audit_entry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from stream_guard.console.sources.state import SourceState
    from stream_guard.core.clock import Clock
    from stream_guard.offline.review.projection import Projection
    from stream_guard.offline.review.queue import ReviewQueue
    from stream_guard.offline.review.store import Store
    from stream_guard.offline.review.tokens import Person
    from stream_guard.records.decision import Decision
    from stream_guard.records.review_audit import Asked
    from stream_guard.settings import Settings

__all__ = ["Desk", "ReviewDatabase", "ReviewKafka", "ReviewTopics"]


class Desk(NamedTuple):
    """The open database."""

    store: Store
    projection: Projection
    queue: ReviewQueue


class ReviewKafka(NamedTuple):
    """What the review needs of Kafka.

    Attributes:
        catch_up: reads the topics on, and returns the number of records.
        write: writes a decision, and returns once the broker has it.
        text_of: returns the text of an item's post from its topic, or None.
        audit: writes an entry of the audit trail, and returns once the broker has it; None without a topic for it.
        close: ends the connections.
    """

    catch_up: Callable[[Projection], Awaitable[int]]
    write: Callable[[Decision], Awaitable[None]]
    text_of: Callable[[dict[str, Any]], Awaitable[str | None]]
    audit: Callable[[dict[str, Any]], Awaitable[None]] | None
    close: Callable[[], Awaitable[None]]

    @classmethod
    def of(cls, settings: Settings) -> ReviewKafka:
        """Return the real ones, by these settings."""
        from stream_guard.kafka.audit_writer import AuditWriter
        from stream_guard.kafka.decision_writer import write_decision
        from stream_guard.offline.review.follow import catch_up, post_text

        auditing = AuditWriter(settings.kafka)
        return cls(
            lambda projection: catch_up(settings, projection),
            lambda decision: write_decision(settings.kafka, decision),
            lambda item: post_text(settings, item),
            None if settings.kafka.audit_topic is None else auditing.write,
            auditing.close,
        )


class ReviewDatabase:
    """Opens the database, and opens it again after it was away.

    Args:
        settings: all sections.
        clock: the time.

    Attributes:
        configured: whether there is a review queue at all.
        counts: the number of items by state, as last read.
        opened: set while the database can be used.
    """

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._watch = SourceWatch("review_database", clock)
        self._desk: Desk | None = None
        self.configured = settings.kafka.review_topic is not None
        self.counts: dict[str, int] = {}
        self.opened = asyncio.Event()
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @property
    def state(self) -> SourceState:
        """How it is now."""
        return self._watch.state

    def desk(self) -> Desk:
        """Return the open database. Raises DatabaseError where it is not open."""
        if self._desk is None:
            raise DatabaseError(self.state.because or "review.database: not open yet")
        return self._desk

    def turn(self, who: str) -> asyncio.Lock:
        """Return the lock of a person: one thing at a time, however many tabs that person has open."""
        return self._turns.setdefault(who, asyncio.Lock())

    async def run(self) -> None:
        """Keep it open until cancelled."""
        while self.configured:
            await self._try()
            await asyncio.sleep(self._settings.review.follow_interval_s)
        await asyncio.Event().wait()

    async def close(self) -> None:
        """Close it."""
        desk, self._desk = self._desk, None
        self.opened.clear()
        if desk is not None:
            await asyncio.to_thread(desk.store.close)

    async def recount(self) -> None:
        """Count the items again. Raises DatabaseError."""
        self.counts = await asyncio.to_thread(self.desk().queue.counts)

    async def _try(self) -> None:
        try:
            if self._desk is None:
                self._desk = await asyncio.to_thread(_open, self._settings)
            await self.recount()
        except (DatabaseError, OperatorError) as error:
            await self.close()
            self._watch.away(str(error))
        else:
            self._watch.fresh()
            self.opened.set()


class ReviewTopics:
    """Reads the topics into the database, and writes what people decide.

    Args:
        settings: all sections.
        clock: the time.
        database: where items are.
        kafka: what of Kafka is used.
    """

    def __init__(
        self, settings: Settings, clock: Clock, database: ReviewDatabase, kafka: ReviewKafka
    ) -> None:
        self._interval_s = settings.review.follow_interval_s
        self._clock = clock
        self._database = database
        self._kafka = kafka
        self._watch = SourceWatch("review_topics", clock)

    @property
    def state(self) -> SourceState:
        """How they are now."""
        return self._watch.state

    async def run(self) -> None:
        """Read on until cancelled."""
        while True:
            await self._database.opened.wait()
            await self._try()
            await asyncio.sleep(self._interval_s)

    async def close(self) -> None:
        """End the connections."""
        await self._kafka.close()

    async def note(self, person: Person, what: Asked, item_id: str | None) -> None:
        """Write that a person asked for something to the audit topic, if there is one. Raises BrokerError."""
        if self._kafka.audit is None:
            return
        self._refuse_if_away()
        entry = build_audit_entry(
            secrets.token_hex(16),
            at_ms=self._clock.wall_ns() // 1_000_000,
            who=person.id,
            role=person.role,
            what=what,
            item_id=item_id,
            allowed=True,
        )
        await self._kafka.audit(entry)

    async def write(self, decision: Decision) -> None:
        """Write a decision, and return once the broker has it. Raises BrokerError."""
        self._refuse_if_away()
        await self._kafka.write(decision)

    async def text_of(self, item: dict[str, Any]) -> str | None:
        """Return the text of an item's post from its topic; None where that no longer has it. Raises BrokerError."""
        self._refuse_if_away()
        return await self._kafka.text_of(item)

    def _refuse_if_away(self) -> None:
        # A client would wait for kafka.request_timeout_ms.
        if self.state.health is Health.AWAY:
            raise BrokerError(self.state.because)

    async def _try(self) -> None:
        try:
            read = await self._kafka.catch_up(self._database.desk().projection)
            if read:
                await self._database.recount()
        except DatabaseError:
            return  # the database says so itself
        except (BrokerError, EvidenceError, OperatorError) as error:
            self._watch.away(str(error))
        else:
            self._watch.fresh()


def _open(settings: Settings) -> Desk:
    """Open the database. Raises SettingsError."""
    from stream_guard.offline.review.projection import Projection
    from stream_guard.offline.review.queue import ReviewQueue
    from stream_guard.offline.review.store import Store

    store = Store(settings.review.database.get_secret_value())
    lease_ms = round(settings.review.lease_s * 1_000)
    return Desk(store, Projection(store, settings.kafka), ReviewQueue(store, lease_ms=lease_ms))
