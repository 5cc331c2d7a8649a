"""What an auditor reads: what people decided and asked for, breakers that opened, and versions of policies.

Each is a source of its own, and is read while somebody looks at it. Topics are read from their latest offsets on, and
each reading says how many earlier ones it left out.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple

from stream_guard.console.sources.audit_rows import Said, Tripped, decided_of
from stream_guard.console.sources.looked_at import LookedAt
from stream_guard.core.errors import NotLeasedError, RecordError, TombstoneError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from stream_guard.console.sources.audit_rows import Decided
    from stream_guard.core.clock import Clock
    from stream_guard.core.kafka_types import Record
    from stream_guard.kafka.bounds import Bound
    from stream_guard.offline.improve.versions import PolicyVersions
    from stream_guard.settings import Settings

__all__ = ["Audit", "AuditKafka", "Breakers", "People", "Topic", "Versions"]

_VERSIONS_INTERVAL_S: Final = 30.0
"""The archive has no latest part: it is read whole."""


class Topic(NamedTuple):
    """How a topic was read.

    Attributes:
        name: of the topic; None where the settings name none.
        there: whether it exists.
        left_out: earlier offsets that were not read.
        foreign: records that say nothing that Stream Guard knows.
    """

    name: str | None
    there: bool = False
    left_out: int = 0
    foreign: int = 0


class People(NamedTuple):
    """What people decided, and what they asked the review for; the latest first."""

    decided: list[Decided]
    decisions: Topic
    said: list[Said]
    trail: Topic


class Breakers(NamedTuple):
    """Breakers that opened, and resets; the latest first."""

    tripped: list[Tripped]
    topic: Topic


class Versions(NamedTuple):
    """The versions of all policies, and why the live ones are unknown; empty where they are known."""

    policies: list[PolicyVersions]
    fault: str


class AuditKafka(NamedTuple):
    """What is read of Kafka and of the archive.

    Attributes:
        people, breakers, versions: read these.
        verdicts: returns the verdicts between two bounds, at most ``console.export_offsets_max`` offsets.
    """

    people: Callable[[], Awaitable[People]]
    breakers: Callable[[], Awaitable[Breakers]]
    versions: Callable[[], Awaitable[Versions]]
    verdicts: Callable[[Bound, Bound], Awaitable[list[dict[str, object]]]]

    @classmethod
    def of(cls, settings: Settings) -> AuditKafka:
        """Return the real ones, by these settings."""
        from stream_guard.offline.export.dsa_run import topic_verdicts
        from stream_guard.offline.improve.versions import versions_in_force

        async def versions() -> Versions:
            return Versions(*await versions_in_force(settings))

        return cls(
            lambda: _people(settings),
            lambda: _breakers(settings),
            versions,
            lambda first, last: topic_verdicts(
                settings, first, last, offsets_max=settings.console.export_offsets_max
            ),
        )


class Audit:
    """The sources, and the export.

    Args:
        settings: all sections.
        clock: the time.
        kafka: what is read.

    Attributes:
        people, breakers, versions: the sources.
    """

    def __init__(self, settings: Settings, clock: Clock, kafka: AuditKafka) -> None:
        interval_s = settings.console.topics_interval_s
        self._kafka = kafka
        self._exporting = asyncio.Lock()
        self.people = LookedAt("audit_people", clock, interval_s, kafka.people)
        self.breakers = LookedAt("audit_breakers", clock, interval_s, kafka.breakers)
        self.versions = LookedAt(
            "audit_versions", clock, max(interval_s, _VERSIONS_INTERVAL_S), kafka.versions
        )

    async def verdicts(self, first: Bound, last: Bound) -> list[dict[str, object]]:
        """Return the verdicts between two bounds.

        Raises:
            NotLeasedError: somebody else exports.
            BrokerError: the broker does not answer.
            SettingsError: there are too many.
        """
        if self._exporting.locked():
            raise NotLeasedError("somebody else exports now; try again when that is done")
        async with self._exporting:
            return await self._kafka.verdicts(first, last)


async def _people(settings: Settings) -> People:
    decided: list[Decided] = []
    said: list[Said] = []

    def read_decision(record: Record) -> bool:
        try:
            decided.append(decided_of(record))
        except TombstoneError:
            pass
        except RecordError:
            return False
        return True

    def read_entry(record: Record) -> bool:
        entry = Said.of(record.value)
        if entry is not None:
            said.append(entry)
        return entry is not None

    decisions = await _read(settings, settings.kafka.decision_topic, read_decision)
    trail = await _read(settings, settings.kafka.audit_topic, read_entry)
    decided.sort(key=lambda each: each.at_ms, reverse=True)
    said.sort(key=lambda each: each.at_ms, reverse=True)
    return People(decided, decisions, said, trail)


async def _breakers(settings: Settings) -> Breakers:
    from stream_guard.stream.breaker.entries import decode

    tripped: list[Tripped] = []

    def read(record: Record) -> bool:
        entry = decode(record.key, record.value)
        found = None if entry is None else Tripped.of(entry)
        if found is not None:
            tripped.append(found)
        return entry is not None or record.value is None

    topic = await _read(settings, settings.kafka.breaker_topic, read)
    tripped.sort(key=lambda each: each.at_ms, reverse=True)
    return Breakers(tripped, topic)


async def _read(settings: Settings, name: str | None, read: Callable[[Record], bool]) -> Topic:
    """Read the latest offsets of a topic; ``read`` returns whether a record is ours. Raises BrokerError."""
    from stream_guard.kafka.input_topics import existing_topics
    from stream_guard.kafka.ranges import RangeReader, Span

    if name is None:
        return Topic(None)
    kafka = settings.kafka
    if name not in await existing_topics(kafka, kafka.request_timeout_ms / 1_000):
        return Topic(name)
    foreign = 0
    async with RangeReader(kafka) as reader:
        whole = await reader.whole(name)
        share = max(1, settings.console.topics_read_max // len(whole))
        spans = {
            tp: Span(max(each.begin, each.end - share), each.end) for tp, each in whole.items()
        }
        async for record in reader.read(spans):
            foreign += not read(record)
    left_out = sum(spans[tp].begin - each.begin for tp, each in whole.items())
    return Topic(name, there=True, left_out=left_out, foreign=foreign)
