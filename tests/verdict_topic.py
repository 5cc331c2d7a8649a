"""A console over topics in memory: verdicts and posts that a test writes, and a broker that it can take away."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import orjson
from aiokafka import TopicPartition

from stream_guard.console.sources.sources import make_sources
from stream_guard.console.sources.verdicts import Verdicts
from stream_guard.core.clock import SystemClock
from stream_guard.core.errors import BrokerError, EvidenceError
from stream_guard.kafka.ranges import Span
from stream_guard.settings import Settings
from tests.console import served
from tests.hang import HANG_S
from tests.verdicts import make_verdict

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from typing import Self

    from stream_guard.console.sources.state import Health
    from stream_guard.core.kafka_types import Record
    from stream_guard.kafka.bounds import Bound
    from stream_guard.kafka.ranges import Spans
    from tests.console import Answer, Served

VERDICTS: Final = "stream-guard.verdicts"
SHADOWS: Final = "shadows"
TRACE: Final = "4bf92f3577b34da6a3ce929d0e0e4736"


@dataclass
class TopicRecord:
    """A record of a topic in memory."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    value: bytes | None
    key: bytes | None = None
    headers: list[tuple[str, bytes]] = field(default_factory=list)


class Topics:
    """Topics in memory, as a reader of ranges sees them.

    Attributes:
        records: by topic and partition.
        away: whether no broker answers.
        asked: number of offsets that were asked for.
        slow: set: reading stops after the first record, and never goes on.
    """

    def __init__(self) -> None:
        self.records: dict[tuple[str, int], list[TopicRecord]] = {(VERDICTS, 0): []}
        self.away = False
        self.asked = 0
        self.slow = False

    def write(
        self,
        value: dict[str, Any] | bytes,
        *,
        topic: str = VERDICTS,
        partition: int = 0,
        headers: tuple[tuple[str, bytes], ...] = (),
    ) -> TopicRecord:
        """Write a record; its time is its offset in seconds."""
        log = self.records.setdefault((topic, partition), [])
        encoded = value if isinstance(value, bytes) else orjson.dumps(value)
        at_ms = 1_700_000_000_000 + len(log) * 1_000
        log.append(TopicRecord(topic, partition, len(log), at_ms, encoded, headers=list(headers)))
        return log[-1]

    async def __aenter__(self) -> Self:
        self._refuse()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Do nothing."""

    async def whole(self, topic: str) -> Spans:
        self._refuse()
        return {
            TopicPartition(name, number): Span(0, len(log))
            for (name, number), log in self.records.items()
            if name == topic
        }

    async def spans(self, topic: str, first: Bound | None, last: Bound | None) -> Spans:
        found = await self.whole(topic)
        return {
            place: Span(
                self._place(place, first, span.begin, span),
                self._place(place, last, span.end, span),
            )
            for place, span in found.items()
        }

    def _place(self, place: TopicPartition, bound: Bound | None, other: int, span: Span) -> int:
        if bound is None:
            return other
        assert bound.time_ms is not None
        log = self.records[place.topic, place.partition]
        return next((each.offset for each in log if each.timestamp >= bound.time_ms), span.end)

    async def read(self, spans: Spans) -> AsyncIterator[Record]:
        self.asked += sum(span.end - span.begin for span in spans.values())
        for place, span in spans.items():
            for record in self.records[place.topic, place.partition][span.begin : span.end]:
                self._refuse()
                yield record
                if self.slow:
                    await asyncio.Event().wait()

    async def at(self, topic: str, partition: int, offset: int) -> Record:
        self._refuse()
        log = self.records.get((topic, partition), [])
        if not 0 <= offset < len(log):
            raise EvidenceError(f"{topic}/{partition}/{offset}: no such record")
        return log[offset]

    def _refuse(self) -> None:
        if self.away:
            raise BrokerError("no broker answers at kafka.example:9092")


@contextlib.asynccontextmanager
async def reading(
    topics: Topics,
    sections: dict[str, Any] | None = None,
    **console: Any,  # noqa: ANN401 - of settings
) -> AsyncIterator[Served]:
    """Serve a console over topics in memory; the feed is on unless ``feed_verdicts_max`` says otherwise."""
    kafka = {"verdict_topic": VERDICTS, "shadow_topic": SHADOWS}
    given = {"kafka": kafka, "policies": {"archive": "off"}, **(sections or {})}
    console = {"feed_verdicts_max": 20, **console}
    settings = Settings(**given, console=console)
    clock = SystemClock()
    verdicts = Verdicts(settings, clock, lambda _timeout_ms: topics)
    sources = replace(make_sources(settings, clock), verdicts=verdicts)
    async with served(given, sources, clock, **console) as console_served:
        yield console_served


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition of a source: it tells nobody."""
    async with asyncio.timeout(HANG_S):
        while not condition():  # noqa: ASYNC110 - a source tells nobody
            await asyncio.sleep(0.01)


async def verdicts_are(console: Served, health: Health) -> None:
    """Return once the console says so about the topic of verdicts."""
    await until(lambda: console.sources.verdicts.state.health is health)


def verdict_on(offset: int = 0, **changes: Any) -> dict[str, Any]:  # noqa: ANN401 - fields of a verdict
    """Return a verdict with a published time that grows by a second with the offset.

    Args:
        offset: of the post's record.
        changes: fields of the verdict, or of ``content``, ``policy`` and ``provenance``.
    """
    verdict = make_verdict(offset=offset, published_ms=1_700_000_000_000 + offset * 1_000)
    for name, value in changes.items():
        places = (verdict["content"], verdict["policy"], verdict["provenance"])
        place = next((each for each in places if name in each), verdict)
        place[name] = value
    return verdict


def found_ids(page: Answer) -> list[str]:
    """Return the contents of the table of verdicts, in its order."""
    return [
        str(each)
        for each in page.tree.xpath("//table//a[contains(@href, '/verdicts/')]/bdi/text()")
    ]
