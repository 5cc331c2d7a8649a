"""A console with a page Audit, and Kafka as a test wants it: records of its topics, and whether it is away."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from stream_guard.console.sources.audit import Audit, AuditKafka, Breakers, People, Topic
from stream_guard.console.sources.audit_rows import Said, Tripped, decided_of
from stream_guard.console.sources.sources import make_sources
from stream_guard.core.clock import SystemClock
from stream_guard.core.errors import BrokerError
from stream_guard.records.decision import encode_decision
from stream_guard.records.review_audit import build_audit_entry, encode_audit_entry
from stream_guard.settings import Settings
from stream_guard.stream.breaker.entries import decode
from stream_guard.testing import MemoryRecord
from tests.console import served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from stream_guard.kafka.bounds import Bound
    from stream_guard.records.decision import Decision
    from tests.console import Served


class FakeAudit:
    """What the audit reads.

    Attributes:
        console: the console.
        decided, said, tripped: rows.
        topic: how every topic was read.
        verdicts: of the verdict topic.
        asked: the bounds of each export.
        away: whether nothing can be read.
        goes_on: an export waits for it.
    """

    def __init__(self) -> None:
        self.console: Served
        self.people = People([], Topic("decisions", there=True), [], Topic("audit", there=True))
        self.breakers = Breakers([], Topic("breaker", there=True))
        self.verdicts: list[dict[str, Any]] = []
        self.asked: list[tuple[Bound, Bound]] = []
        self.away = False
        self.goes_on = asyncio.Event()
        self.goes_on.set()

    def decide(self, decision: Decision) -> None:
        """Write a decision."""
        key, value, headers = encode_decision(decision)
        self.people.decided.append(
            decided_of(MemoryRecord("decisions", 0, 0, 0, key, value, list(headers)))
        )

    def say(self, what: Any = "show", **changes: Any) -> None:  # noqa: ANN401 - of an entry
        """Write an entry of the trail."""
        entry = build_audit_entry(
            "0" * 32,
            at_ms=1_700_000_000_000,
            who="r-1",
            role="reviewer",
            what=what,
            item_id="i-1",
            allowed=True,
        )
        found = Said.of(encode_audit_entry(entry | changes)[1])
        assert found is not None
        self.people.said.append(found)

    def trip(self, key: bytes, value: bytes) -> None:
        """Write a record of the breaker's topic."""
        entry = decode(key, value)
        assert entry is not None
        found = Tripped.of(entry)
        if found is not None:
            self.breakers.tripped.append(found)

    def parts(self, true_parts: AuditKafka) -> AuditKafka:
        return true_parts._replace(
            people=self._people, breakers=self._breakers, verdicts=self._verdicts
        )

    def _refuse(self) -> None:
        if self.away:
            raise BrokerError("no broker answers at kafka.example:9092")

    async def _people(self) -> People:
        self._refuse()
        return self.people

    async def _breakers(self) -> Breakers:
        self._refuse()
        return self.breakers

    async def _verdicts(self, first: Bound, last: Bound) -> list[dict[str, Any]]:
        self.asked.append((first, last))
        await self.goes_on.wait()
        self._refuse()
        return self.verdicts


@contextlib.asynccontextmanager
async def auditing(
    sections: dict[str, Any] | None = None,
    **console: Any,  # noqa: ANN401 - values of settings
) -> AsyncIterator[FakeAudit]:
    """Serve a console with a fake audit; the archive is that of the settings, by default none."""
    clock = SystemClock()
    sections = {"policies": {"archive": "off"}} if sections is None else sections
    settings = Settings(
        **sections, console={"metrics_urls": [], "topics_interval_s": 0.02, **console}
    )
    fake = FakeAudit()
    sources = make_sources(settings, clock)
    audit = Audit(settings, clock, fake.parts(AuditKafka.of(settings)))
    async with served(sections, replace(sources, audit=audit), clock, **console) as fake.console:
        yield fake
