"""A console with a review queue, and Kafka as a test wants it: what is written, and whether it is away."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import orjson
from jsonschema import Draft202012Validator

from stream_guard.console.security.roles import Role
from stream_guard.console.sources.review import ReviewKafka, ReviewTopics
from stream_guard.console.sources.sources import make_sources
from stream_guard.console.sources.state import Health
from stream_guard.core.errors import BrokerError
from stream_guard.offline.review.projection import Projection
from stream_guard.offline.review.queue import ReviewQueue
from stream_guard.offline.review.store import Store
from stream_guard.records.contracts import writer_schema
from stream_guard.settings import Settings
from stream_guard.testing import ManualClock
from tests.console import served
from tests.hang import HANG_S
from tests.unit.offline.review.topics import KAFKA, Topics, apply

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from stream_guard.records.decision import Decision
    from tests.console import Answer, Served, Visitor

ENTRY: Final = Draft202012Validator(writer_schema("review-audit-1.0.json"))
POLICY: Final = "# Spam\n\n- S1: Unwanted advertising (violates)\n- S2: Scams (violates)\n"


class FakeKafka:
    """What the review needs of Kafka.

    Attributes:
        written: decisions.
        entries: of the audit topic, each with the number of decisions before it.
        away: whether nothing can be read or written.
        text: of every post.
    """

    def __init__(self) -> None:
        self.written: list[Decision] = []
        self.entries: list[dict[str, Any]] = []
        self.away = False
        self.text = "the text of a post"

    def parts(self) -> ReviewKafka:
        return ReviewKafka(self._catch_up, self._write, self._text_of, self._audit, self._close)

    async def _catch_up(self, _projection: Projection) -> int:
        self._refuse()
        return 0

    async def _write(self, decision: Decision) -> None:
        self._refuse()
        self.written.append(decision)

    async def _text_of(self, _item: dict[str, Any]) -> str | None:
        self._refuse()
        return self.text

    async def _audit(self, entry: dict[str, Any]) -> None:
        self._refuse()
        ENTRY.validate(entry)
        self.entries.append(entry | {"decided": len(self.written)})

    async def _close(self) -> None:
        """Do nothing."""

    def _refuse(self) -> None:
        if self.away:
            raise BrokerError("no broker answers at kafka.example:9092")


class ReviewDesk:
    """A served console over a queue.

    Attributes:
        console: the console.
        kafka: what it writes.
        clock: its time.
        topics: what the queue is made of.
        file: the database.
    """

    def __init__(self, folder: Path, kafka: FakeKafka, clock: ManualClock) -> None:
        self.console: Served
        self.kafka = kafka
        self.clock = clock
        self.topics = Topics()
        self.file = folder / "review.sqlite"
        self._store = Store(str(self.file))
        self.projection = Projection(self._store, KAFKA)
        self.queue = ReviewQueue(self._store)

    def add(self, number: int, count: int = 1, **changes: Any) -> list[str]:  # noqa: ANN401 - of verdicts
        """Put items into the queue; return their ids."""
        names = [self.topics.item(n, **changes) for n in range(number, number + count)]
        self.apply()
        return names

    def hostile(self, text: str) -> str:
        """Put an item into the queue that has this text in each field; return its id."""
        self.topics.item(900, decision="violates")
        item = orjson.loads(self.topics.records[-1].value or b"")
        item["policy"] |= {"id": text, "version": text}
        item["content"] |= dict.fromkeys(("id", "author", "tenant", "language"), text)
        named = dict.fromkeys(("action", "category", "severity", "tier", "model"), text)
        item["verdict"] |= named | {"labels": [text], "rule_ids": [text]}
        item |= {"why": [text], "review_reasons": [text], "text": text}
        item["source"] |= {"topic": text, "key": text}
        self.topics.records.pop()
        self.topics.ends["review", 0] -= 1
        self.topics.write("review", orjson.dumps(item), b"k")
        self.apply()
        name: str = item["id"]
        return name

    def apply(self) -> None:
        """Project what the topics have."""
        apply(self.projection, self.topics.records)

    async def topics_are(self, health: Health) -> None:
        """Return once the console says so about its topics."""
        await self._until(lambda: self.console.sources.review_topics.state.health is health)

    async def database_is(self, health: Health) -> None:
        """Return once the console says so about its database."""
        await self._until(lambda: self.console.sources.review_database.state.health is health)

    @contextlib.asynccontextmanager
    async def reviewer(self, role: Role = Role.REVIEWER) -> AsyncIterator[Visitor]:
        """Open a client of this role, with the first item taken."""
        async with self.console.visitor(role) as visitor:
            await visitor.post("/review/next", {})
            yield visitor

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(HANG_S):
            while not condition():  # noqa: ASYNC110 - a source tells nobody
                await asyncio.sleep(0.01)

    def close(self) -> None:
        self._store.close()


def item_of(answer: Answer) -> str:
    """Return the id of the item that a page shows; empty where it shows none."""
    found = answer.tree.xpath("//form[@class='decide']/input[@name='item']/@value")
    return str(found[0]) if found else ""


@contextlib.asynccontextmanager
async def reviewing(
    folder: Path,
    clock: ManualClock | None = None,
    **console: Any,  # noqa: ANN401 - values of settings
) -> AsyncIterator[ReviewDesk]:
    """Serve a console with an empty review queue.

    Args:
        folder: for the database and the policies.
        clock: of the console.
        console: settings of the section ``console``.
    """
    (folder / "policies" / "spam").mkdir(parents=True)
    (folder / "policies" / "spam" / "policy.md").write_text(POLICY)
    (folder / "policies" / "spam" / "policy.yaml").write_text(
        "categories:\n  S1: {action: limit}\n  S2: {action: remove}\n"
    )
    sections = {
        "kafka": {"review_topic": "review", "audit_topic": "audit"},
        "decisions": {"enabled": True},
        "policies": {"path": folder / "policies"},
        "review": {"database": str(folder / "review.sqlite"), "follow_interval_s": 0.02},
    }
    clock = clock or ManualClock()
    desk = ReviewDesk(folder, FakeKafka(), clock)
    settings = Settings(**sections, console={"metrics_urls": [], **console})  # type: ignore[arg-type]
    sources = make_sources(settings, clock)
    topics = ReviewTopics(settings, clock, sources.review_database, desk.kafka.parts())
    async with served(
        sections, replace(sources, review_topics=topics), clock, **console
    ) as desk.console:
        await desk.topics_are(Health.FRESH)
        try:
            yield desk
        finally:
            desk.close()
