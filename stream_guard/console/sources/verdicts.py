"""The topic of verdicts: the latest as a sample, and bounded searches. It joins no group.

The sample never falls behind: each turn looks at the newest offsets of each partition alone, and counts the others.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from stream_guard.client.errors import UnreadableVerdictError
from stream_guard.console.sources.state import Health, SourceWatch
from stream_guard.console.sources.verdict_search import (
    Found,
    Searched,
    Sought,
    read_found,
    search_spans,
)
from stream_guard.core.errors import (
    BrokerError,
    EvidenceError,
    NotLeasedError,
    RecordError,
    StreamGuardError,
    UnknownItemError,
)
from stream_guard.kafka.ranges import RangeReader, Span
from stream_guard.kafka.registry.assembly import open_parser
from stream_guard.kafka.registry.written import open_verdicts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager
    from typing import Any

    from stream_guard.client.verdicts import Verdict
    from stream_guard.console.sources.state import SourceState
    from stream_guard.console.sources.verdict_search import TopicReader
    from stream_guard.core.clock import Clock
    from stream_guard.core.kafka_types import Record
    from stream_guard.kafka.bounds import Bound
    from stream_guard.kafka.ranges import Spans
    from stream_guard.kafka.registry.written import VerdictReader
    from stream_guard.records.post import Post
    from stream_guard.settings import Settings

__all__ = ["FEED_INTERVAL_S", "Feed", "JudgedPost", "Verdicts"]

FEED_INTERVAL_S: Final = 0.5
"""Between two looks. Pages send what is new each second, so a verdict is shown within two."""
WINDOW_S: Final = 10.0
"""Over how long the feed counts."""
_BEHIND_S: Final = 2.0
_RETRY_S: Final = 1.0
_FEED_TIMEOUT_MS: Final = 5_000
"""So long a broker may be silent before it counts as away."""
_PARTITION_OFFSETS_MIN: Final = 4
"""Of each partition, since the last offset can be a marker of a transaction."""
_SEARCHES_MAX: Final = 2
"""At a time; others wait for their turn. A search goes on also when its person has left."""
_PLACES_MAX: Final = 8
"""Single records that are read at a time; they never wait for searches."""
_TURN_TIMEOUT_S: Final = 5.0
"""How long anybody waits for a turn."""

LIVE: Final = "live"
SHADOW: Final = "shadow"


@dataclass(slots=True, frozen=True)
class Feed:
    """The latest verdicts.

    Attributes:
        latest: the newest first.
        read: records that were read in the last :data:`WINDOW_S`.
        passed: records, by their offsets, that came in that time.
        unreadable: records of all looks that are no verdict of this version.
        looked_ms: when it looked last, Unix time in ms; None before the first look.
    """

    latest: tuple[Found, ...] = ()
    read: int = 0
    passed: int = 0
    unreadable: int = 0
    looked_ms: int | None = None


class _Look(NamedTuple):
    """One look at the topic: when, how many records it read, and how many there were."""

    at_s: float
    read: int
    passed: int


class JudgedPost(NamedTuple):
    """A post that was judged, its record, and the document in it."""

    post: Post
    record: Record
    document: Any


class Verdicts:
    """The topics of verdicts.

    Args:
        settings: all sections.
        clock: the time.
        open_topic: opens a reader; by default one of the settings' broker, with a timeout of its requests in ms.

    Attributes:
        topics: by the word that addresses have for it: ``live``, and ``shadow`` if there is one.
        feed: the latest verdicts.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        open_topic: Callable[[int], AbstractAsyncContextManager[TopicReader]] | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._open = open_topic or self._open_real
        self._watch = SourceWatch("verdicts", clock)
        self._seen: dict[object, int] = {}
        self._looks: deque[_Look] = deque()
        self._searching = asyncio.Semaphore(_SEARCHES_MAX)
        self._finding = asyncio.Semaphore(_PLACES_MAX)
        self.feed = Feed()
        self.topics = {LIVE: settings.kafka.verdict_topic}
        if settings.kafka.shadow_topic:
            self.topics[SHADOW] = settings.kafka.shadow_topic

    @property
    def state(self) -> SourceState:
        """How the topic is now."""
        return self._watch.state

    @property
    def follows(self) -> bool:
        """Whether there is a feed at all."""
        return self._settings.console.feed_verdicts_max > 0

    async def run(self) -> None:
        """Keep the feed until cancelled."""
        while self.follows:
            try:
                async with (
                    self._open(_FEED_TIMEOUT_MS) as reader,
                    open_verdicts(self._settings) as reading,
                ):
                    while True:
                        await self._look(reader, reading)
                        await asyncio.sleep(FEED_INTERVAL_S)
            except StreamGuardError as error:
                self._watch.away(str(error))
                await asyncio.sleep(_RETRY_S)
        await asyncio.Event().wait()

    async def close(self) -> None:
        """Do nothing: the connections end with :meth:`run`."""

    async def search(
        self, sought: Sought, topic: str, first: Bound | None, last: Bound | None
    ) -> Searched:
        """Search a topic.

        Args:
            sought: what is looked for.
            topic: ``live`` or ``shadow``.
            first: the beginning of the range; None is that of the topic.
            last: its end; None is the topic's current end.

        Raises:
            NotLeasedError: too many people search.
            BrokerError: the broker does not answer.
            SettingsError, RegistryError: a verdict is Avro and its schema cannot be had.
        """
        async with self._connected(self._searching) as (reader, reading):
            spans = await reader.spans(self._topic(topic), first, last)
            return await self._searched(reader, reading, spans, sought.fits, sought.needles())

    async def find(self, topic: str, partition: int, offset: int) -> Found:
        """Return the verdict at a place.

        Raises:
            UnknownItemError: there is none, or none that can be read.
            NotLeasedError: too many people search.
            BrokerError: the broker does not answer.
        """
        async with self._connected(self._finding) as (reader, reading):
            try:
                record = await reader.at(self._topic(topic), partition, offset)
                return await read_found(record, reading)
            except (EvidenceError, UnreadableVerdictError) as error:
                raise UnknownItemError(str(error)) from error

    async def later(self, found: Found) -> Searched:
        """Return what came after a verdict about the same: superseding verdicts, retractions, an expiry, judgements.

        They have the key of the verdict's record, so they are in its partition.

        Raises:
            NotLeasedError: too many people search.
            BrokerError: the broker does not answer.
        """
        verdict = found.verdict
        sought = Sought(verdict.id).needles() + Sought(content=verdict.content.id).needles()
        if verdict.source.key:
            sought += Sought(content=verdict.source.key).needles()
        async with self._connected(self._searching) as (reader, reading):
            whole = await reader.whole(found.topic)
            spans: Spans = {
                partition: Span(min(found.offset + 1, span.end), span.end)
                for partition, span in whole.items()
                if partition.partition == found.partition
            }
            return await self._searched(
                reader, reading, spans, lambda other: _concerns(other, verdict), sought, any_=True
            )

    async def judged(self, verdict: Verdict) -> JudgedPost | None:
        """Return the post of a verdict from its own topic; None where that has it no longer, or has another text.

        Raises:
            NotLeasedError: too many people search.
            BrokerError: the broker does not answer.
        """
        source = verdict.source
        async with (
            self._connected(self._finding) as (reader, _),
            open_parser(self._settings) as parser,
        ):
            try:
                record = await reader.at(source.topic, source.partition, source.offset)
                post, document = await parser.parse(record)
            except (EvidenceError, RecordError):
                return None
        if post.sha256 != verdict.content.sha256:
            return None
        return JudgedPost(post, record, document)

    def _topic(self, name: str) -> str:
        if name not in self.topics:
            raise UnknownItemError(f"there is no topic of {name} verdicts")
        return self.topics[name]

    async def _searched(
        self,
        reader: TopicReader,
        reading: VerdictReader,
        spans: Spans,
        fits: Callable[[Verdict], bool],
        needles: list[bytes],
        *,
        any_: bool = False,
    ) -> Searched:
        console = self._settings.console
        return await search_spans(
            reader,
            reading,
            spans,
            fits=fits,
            needles=needles,
            any_needle=any_,
            offsets_max=console.search_records_max,
            deadline_s=console.search_timeout_s,
        )

    @contextlib.asynccontextmanager
    async def _connected(
        self, turns: asyncio.Semaphore
    ) -> AsyncIterator[tuple[TopicReader, VerdictReader]]:
        """Lend a reader of the topics.

        Raises:
            NotLeasedError: no turn was free in time.
            BrokerError: the broker does not answer; at once where the feed knows that it is away.
        """
        if self.state.health is Health.AWAY:
            raise BrokerError(self.state.because)
        try:
            async with asyncio.timeout(_TURN_TIMEOUT_S):
                await turns.acquire()
        except TimeoutError:
            raise NotLeasedError("other people search now; try again in some seconds") from None
        try:
            async with (
                self._open(_FEED_TIMEOUT_MS) as reader,
                open_verdicts(self._settings) as reading,
            ):
                yield reader, reading
        finally:
            turns.release()

    def _open_real(self, timeout_ms: int) -> RangeReader:
        kafka = self._settings.kafka
        timeout_ms = min(timeout_ms, kafka.request_timeout_ms)
        return RangeReader(kafka.model_copy(update={"request_timeout_ms": timeout_ms}))

    async def _look(self, reader: TopicReader, reading: VerdictReader) -> None:
        """Read the newest records of each partition, and count those that are left out."""
        began_s = self._clock.monotonic_s()
        whole = await reader.whole(self.topics[LIVE])
        shown_max = self._settings.console.feed_verdicts_max
        per_partition = max(_PARTITION_OFFSETS_MIN, -(-shown_max // len(whole)))
        spans: Spans = {}
        passed = 0
        for partition, span in whole.items():
            seen = self._seen.get(partition, span.end - per_partition)
            if seen > span.end:
                seen = span.begin  # the topic was made again
            begin = max(seen, span.begin, span.end - per_partition)
            passed += span.end - max(seen, span.begin) if partition in self._seen else 0
            spans[partition] = Span(begin, span.end)
        new: list[Found] = []
        read = unreadable = 0
        async for record in reader.read(spans):
            read += 1
            try:
                new.append(await read_found(record, reading))
            except UnreadableVerdictError:
                unreadable += 1
        self._seen = {partition: span.end for partition, span in whole.items()}
        # What came in this look is first, whatever the clock says of who wrote it: a fast one must not stay on top.
        new.reverse()
        new.sort(key=lambda each: -each.verdict.timing.published)
        self._looks.append(_Look(began_s, read, max(read, passed)))
        while self._looks[0].at_s < began_s - WINDOW_S:
            self._looks.popleft()
        self.feed = Feed(
            (*new, *self.feed.latest)[:shown_max],
            sum(look.read for look in self._looks),
            sum(look.passed for look in self._looks),
            self.feed.unreadable + unreadable,
            self._clock.wall_ns() // 1_000_000,
        )
        took_s = self._clock.monotonic_s() - began_s
        if took_s > _BEHIND_S:
            self._watch.stale(f"a look at the topic took {took_s:.1f} s")
        else:
            self._watch.fresh()


def _concerns(other: Verdict, verdict: Verdict) -> bool:
    """Return whether a later event says something about a verdict, or about the same content under its policy."""
    named = {other.supersedes, other.expired, *(hop.verdict_id for hop in other.escalated)}
    retracts = other.retracts
    if verdict.id in named:
        return True
    if retracts is not None:
        same = retracts.content_id == verdict.content.id or (
            retracts.content_id is None and retracts.key == verdict.source.key
        )
        return retracts.verdict_id == verdict.id or (retracts.verdict_id is None and same)
    return other.content_subject == verdict.content_subject and other.id != verdict.id
