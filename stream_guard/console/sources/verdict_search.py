"""Searches a topic of verdicts within bounds, and says how much it did not search.

The newest records come first where a range has more than the limit. The words that people type are in memory alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import orjson

from stream_guard.client.errors import UnreadableVerdictError
from stream_guard.client.verdicts import Verdict, parse_verdict
from stream_guard.kafka.ranges import Span
from stream_guard.telemetry.trace_context import read_traceparent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from stream_guard.core.kafka_types import Record
    from stream_guard.kafka.bounds import Bound
    from stream_guard.kafka.ranges import Spans
    from stream_guard.kafka.registry.written import VerdictReader

__all__ = [
    "SHOWN_MAX",
    "Found",
    "Searched",
    "Sought",
    "TopicReader",
    "newest",
    "read_found",
    "search_spans",
]

SHOWN_MAX: Final = 100
"""Verdicts that one search shows: the newest."""


class TopicReader(Protocol):
    """What is needed of a :class:`.RangeReader`."""

    async def whole(self, topic: str) -> Spans:
        """See :meth:`.RangeReader.whole`."""

    async def spans(self, topic: str, first: Bound | None, last: Bound | None) -> Spans:
        """See :meth:`.RangeReader.spans`."""

    def read(self, spans: Spans) -> AsyncIterator[Record]:
        """See :meth:`.RangeReader.read`."""

    async def at(self, topic: str, partition: int, offset: int) -> Record:
        """See :meth:`.RangeReader.at`."""


class Found(NamedTuple):
    """A verdict, and where it is.

    Attributes:
        topic, partition, offset: of its record.
        verdict: as published.
        trace_id: 32 hex digits; None where the record has no valid ``traceparent``.
    """

    topic: str
    partition: int
    offset: int
    verdict: Verdict
    trace_id: str | None = None


@dataclass(slots=True, frozen=True)
class Sought:
    """What is looked for. Empty fields take everything; the others must all fit."""

    id: str = ""
    content: str = ""
    author: str = ""
    policy: str = ""
    rule: str = ""
    decision: str = ""

    def needles(self) -> list[bytes]:
        """Return what the JSON of a verdict that fits must contain: most others need not be parsed then."""
        words = (self.id, self.content, self.author, self.policy, self.rule)
        return [orjson.dumps(word)[1:-1] for word in words if word]

    def fits(self, verdict: Verdict) -> bool:
        """Return whether a verdict is one of those. A rule is a rule or a category; an id may be one it names."""
        about = verdict.policy
        names = {verdict.id, verdict.supersedes, verdict.expired}
        if verdict.retracts is not None:
            names.add(verdict.retracts.verdict_id)
        return (
            (not self.id or self.id in names)
            and (not self.content or verdict.content.id == self.content)
            and (not self.author or verdict.content.author == self.author)
            and (not self.policy or about.id == self.policy)
            and (not self.rule or self.rule in (about.category, *about.rule_ids))
            and (not self.decision or verdict.decision == self.decision)
        )


@dataclass(slots=True)
class Searched:
    """What a search found, and what it did not look at.

    Attributes:
        found: the newest first, :data:`SHOWN_MAX` at most.
        matched: how many fit, also those that are not shown.
        read: records that were looked at.
        unreadable: records among them that are no verdict of this version.
        left: offsets of the range that were not looked at, because there are too many.
        complete_since_ms: everything that is newer has been looked at, Unix time in ms; None where all has.
        stopped: whether the time was over.
    """

    found: list[Found] = field(default_factory=list)
    matched: int = 0
    read: int = 0
    unreadable: int = 0
    left: int = 0
    complete_since_ms: int | None = None
    stopped: bool = False


def newest(spans: Spans, offsets_max: int) -> tuple[Spans, int]:
    """Return the last offsets of each partition, ``offsets_max`` in all, and how many are left out.

    Partitions share the limit equally; what a short one does not need goes to the longer ones.
    """
    cut: Spans = {}
    rest, left = offsets_max, 0
    in_order = sorted(spans.items(), key=lambda pair: pair[1].end - pair[1].begin)
    for number, (partition, span) in enumerate(in_order):
        size = span.end - span.begin
        taken = min(size, rest // (len(in_order) - number))
        cut[partition] = Span(span.end - taken, span.end)
        rest -= taken
        left += size - taken
    return cut, left


async def read_found(record: Record, reading: VerdictReader) -> Found:
    """Return the verdict in a record.

    Raises:
        UnreadableVerdictError: it holds none that this version can read.
        SettingsError: it is Avro, and ``registry.url`` is not set.
        RegistryError: the registry does not answer.
    """
    await reading.prepare(record.value)
    place = f"{record.topic}/{record.partition}/{record.offset}"
    verdict = parse_verdict(record.value, place, reading.schemas)
    context = read_traceparent(record)
    trace_id = None if context is None else context[0].split("-")[1]
    return Found(record.topic, record.partition, record.offset, verdict, trace_id)


async def search_spans(
    reader: TopicReader,
    reading: VerdictReader,
    spans: Spans,
    *,
    fits: Callable[[Verdict], bool],
    needles: Sequence[bytes],
    any_needle: bool = False,
    offsets_max: int,
    deadline_s: float,
) -> Searched:
    """Look at the newest records of a range.

    Args:
        reader: of the topic.
        reading: reads verdicts in each form.
        spans: the range.
        fits: whether a verdict is wanted.
        needles: a verdict as JSON that has not all of them (with ``any_needle``: none of them) is not wanted.
        any_needle: see ``needles``.
        offsets_max: most offsets to look at.
        deadline_s: most time, in s. Returns the verdicts found until then.

    Raises:
        BrokerError: the broker does not answer.
        SettingsError, RegistryError: as :func:`read_found`.
    """
    cut, left = newest(spans, offsets_max)
    searched = Searched(left=left)
    whole = any if any_needle else all
    best: list[tuple[int, int, int, Found]] = []
    begun_ms: dict[int, int] = {}
    shortened = {at.partition for at, span in cut.items() if span.begin > spans[at].begin}
    with contextlib.suppress(TimeoutError):
        searched.stopped = True
        async with asyncio.timeout(deadline_s):
            async for record in reader.read(cut):
                searched.read += 1
                if record.partition in shortened:
                    begun_ms.setdefault(record.partition, record.timestamp)
                value = record.value or b""
                if needles and value.startswith(b"{") and not whole(n in value for n in needles):
                    continue
                try:
                    found = await read_found(record, reading)
                except UnreadableVerdictError:
                    searched.unreadable += 1
                    continue
                if fits(found.verdict):
                    searched.matched += 1
                    entry = (found.verdict.timing.published, found.partition, found.offset, found)
                    # The place is unique, so the verdicts themselves are never compared.
                    (heapq.heappush if len(best) < SHOWN_MAX else heapq.heappushpop)(best, entry)
        searched.stopped = False
    searched.found = [entry[-1] for entry in sorted(best, reverse=True)]
    searched.complete_since_ms = max(begun_ms.values(), default=None)
    return searched
