"""What a reviewer does at the queue. Each step is in the audit trail; the database is used in threads."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from stream_guard.console.pages.review.choices import choices_for, make_choice
from stream_guard.console.pages.review.wellbeing import (
    break_end_ms,
    full_categories,
    work_since_ms,
)
from stream_guard.console.security.roles import Role
from stream_guard.core.errors import NotLeasedError
from stream_guard.offline.decide import section_of
from stream_guard.offline.review.deciding import decide
from stream_guard.offline.review.tokens import Person

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_guard.console.ask import Ask
    from stream_guard.console.pages.review.choices import Choices
    from stream_guard.offline.review.queue import Lease

__all__ = ["Done", "Limits", "OnDesk", "Reviewer"]


class Limits(NamedTuple):
    """How a person's limits are now.

    Attributes:
        break_end_ms: when the break ends, Unix time in ms; None where none is due.
        full: policies and categories of which the person has seen enough, with the limit of each.
        skipped: ids of items that the person has skipped.
    """

    break_end_ms: int | None
    full: Mapping[tuple[str, str], int]
    skipped: frozenset[str]


class OnDesk(NamedTuple):
    """The item that a person has leased.

    Attributes:
        item: with its text and the decisions that the person may see.
        until_ms: when the lease ends, Unix time in ms.
        choices: what may be chosen.
        escalated: who left it to a lead, when and why; None where nobody has.
    """

    item: Mapping[str, Any]
    until_ms: int
    choices: Choices
    escalated: Mapping[str, Any] | None


class Done(NamedTuple):
    """A decision that may be taken back until a time (Unix time in ms), and the item that it is about."""

    decision: Mapping[str, Any]
    item_id: str
    until_ms: int


class Reviewer:
    """One person at the queue, for one request.

    Args:
        ask: the request.

    Raises:
        DatabaseError: the database is not open. Every method raises it as well, and BrokerError.
    """

    def __init__(self, ask: Ask) -> None:
        self._settings = ask.parts.settings
        self._topics = ask.sources.review_topics
        self._desk = ask.sources.review_database.desk()
        self._clock = ask.parts.clock
        self.person = Person(ask.who, str(ask.role))
        self._turn = ask.sources.review_database.turn(ask.who)

    def now_ms(self) -> int:
        """Return the time, Unix time in ms."""
        return self._clock.wall_ns() // 1_000_000

    async def limits(self) -> Limits:
        """Return how the person's limits are now."""
        now_ms, console = self.now_ms(), self._settings.console
        work = await asyncio.to_thread(
            self._desk.queue.work, self.person, work_since_ms(now_ms, console)
        )
        skipped = frozenset(item["id"] for _, what, item in work if what == "skip" and item)
        return Limits(
            break_end_ms(work, now_ms, console), full_categories(work, now_ms, console), skipped
        )

    async def on_desk(self, *, text: bool = True) -> OnDesk | None:
        """Return the leased item; None where the person holds none.

        Args:
            text: False leaves the post's text out, and notes nothing in the audit topic.
        """
        queue, now_ms = self._desk.queue, self.now_ms()
        lease = await asyncio.to_thread(queue.holding, self.person, now_ms)
        if lease is None:
            return None
        if text:
            await self._topics.note(self.person, "show", lease.item_id)
        item = await asyncio.to_thread(queue.show, lease.item_id, self.person, now_ms)
        if not text:
            item["text"] = None
        elif item["text"] is None and item["state"] != "withdrawn":
            item["text"] = await self._topics.text_of(item)
        if item["state"] == "open":
            # A second opinion is blind, also that of a lead, who may see the decisions elsewhere.
            item["decisions"] = [
                each for each in item["decisions"] if each["decided_by"]["id"] == self.person.id
            ]
        choices = await asyncio.to_thread(choices_for, item, self._settings.policies.path)
        escalated = await asyncio.to_thread(queue.escalated)
        return OnDesk(item, lease.until, choices, escalated.get(lease.item_id))

    async def take(self, item_id: str | None = None, *, skipped: bool = True) -> Lease | None:
        """Lease the next item that the person may have, or this one; None where there is none, or a break is due.

        Args:
            item_id: of an item, or None for the next.
            skipped: whether, after all others, items come again that the person has skipped.

        Raises:
            NotLeasedError: a break is due, or the item cannot be leased.
        """
        async with self._turn:
            now_ms, queue = self.now_ms(), self._desk.queue
            held = await asyncio.to_thread(queue.holding, self.person, now_ms)
            if held is not None and item_id in (None, held.item_id):
                return held
            limits = await self.limits()
            if limits.break_end_ms is not None:
                return None
            if held is not None:  # one item at a time
                await asyncio.to_thread(queue.release, held.item_id, self.person, now_ms)
            lease = await asyncio.to_thread(self._claim, limits, item_id, now_ms, skipped=skipped)
            await self._topics.note(self.person, "lease", None if lease is None else lease.item_id)
            return lease

    def _claim(
        self, limits: Limits, item_id: str | None, now_ms: int, *, skipped: bool
    ) -> Lease | None:
        queue = self._desk.queue
        if item_id is not None:
            return queue.claim(self.person, now_ms, item_id=item_id)
        escalated = queue.escalated()

        def may(item: Mapping[str, Any]) -> bool:
            return (item["policy"]["id"], item["verdict"]["category"]) not in limits.full

        def is_left(item: Mapping[str, Any]) -> bool:
            return item["id"] in escalated and item["id"] not in limits.skipped and may(item)

        def is_next(item: Mapping[str, Any]) -> bool:
            return may(item) and (self.person.role == Role.LEAD or item["id"] not in escalated)

        def is_new(item: Mapping[str, Any]) -> bool:
            return item["id"] not in limits.skipped and is_next(item)

        orders = [is_new, is_next] if skipped else [is_new]
        if self.person.role == Role.LEAD and escalated:
            orders.insert(0, is_left)
        for fits in orders:
            lease = queue.claim(self.person, now_ms, fits=fits)
            if lease is not None:
                return lease
        return None

    async def decide(
        self, item_id: str, *, decision: str, category: str, action: str, reason: str
    ) -> None:
        """Decide about the leased item.

        Raises:
            UnknownItemError: there is no such item.
            NotLeasedError: this person has not leased it, or the lease has expired.
            SettingsError: the choice is incomplete or invalid.
        """
        async with self._turn:
            queue, now_ms = self._desk.queue, self.now_ms()
            item, _ = await asyncio.to_thread(queue.held, item_id, self.person, now_ms)
            choices = await asyncio.to_thread(choices_for, item, self._settings.policies.path)
            choice = make_choice(
                choices, decision=decision, category=category, action=action, reason=reason
            )
            # The entry comes first: nothing is decided without one.
            await self._topics.note(self.person, "decide", item_id)
            await decide(
                queue,
                self._desk.projection,
                self._topics.write,
                item_id=item_id,
                choice=choice,
                person=self.person,
                now_ms=now_ms,
                section_of=partial(section_of, self._settings),
            )

    async def skip(self, item_id: str) -> None:
        """Give the leased item back, and get others first. Raises NotLeasedError and UnknownItemError."""
        async with self._turn:
            now_ms = self.now_ms()
            await asyncio.to_thread(self._desk.queue.held, item_id, self.person, now_ms)
            await self._topics.note(self.person, "release", item_id)
            await asyncio.to_thread(self._desk.queue.release, item_id, self.person, now_ms, "skip")

    async def escalate(self, item_id: str, reason: str) -> None:
        """Leave the leased item to a lead. Raises NotLeasedError and UnknownItemError."""
        async with self._turn:
            if self.person.role == Role.LEAD:
                raise NotLeasedError("you are a lead: decide, or skip the item")
            await self._topics.note(self.person, "release", item_id)
            words = reason.strip()[:2_000] or None
            await asyncio.to_thread(
                self._desk.queue.escalate, item_id, self.person, self.now_ms(), words
            )

    async def last(self) -> Done | None:
        """Return the last decision, while it may be taken back."""
        from stream_guard.offline.review.undoing import last_decision

        undo_ms = round(self._settings.console.review_undo_s * 1_000)
        found = await asyncio.to_thread(
            last_decision, self._desk.store, self.person, self.now_ms() - undo_ms
        )
        if found is None:
            return None
        decision, item = found
        return Done(decision, item["id"], decision["decided_at"] + undo_ms)

    async def undo(self) -> None:
        """Take the last decision back, and lease its item again. Raises NotLeasedError."""
        from stream_guard.offline.review.undoing import undo

        async with self._turn:
            now_ms, queue = self.now_ms(), self._desk.queue
            done = await self.last()
            if done is None:
                raise NotLeasedError("there is no decision of yours that can still be taken back")
            held = await asyncio.to_thread(queue.holding, self.person, now_ms)
            if held is not None:
                await asyncio.to_thread(queue.release, held.item_id, self.person, now_ms)
            await self._topics.note(self.person, "decide", done.item_id)
            item_id = await undo(
                self._desk.store,
                self._desk.projection,
                self._topics.write,
                person=self.person,
                now_ms=now_ms,
                undo_ms=round(self._settings.console.review_undo_s * 1_000),
            )
            # Also while a break is due: the person has read it already, and it waits for an answer.
            await asyncio.to_thread(queue.claim, self.person, now_ms, item_id=item_id)
            await self._topics.note(self.person, "lease", item_id)
