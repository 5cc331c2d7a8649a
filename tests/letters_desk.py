"""A console with dead letters, and Kafka as a test wants it: what it holds and sends back, and whether it is away."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from stream_guard.console.sources.dead_letters import DeadLetters, LettersKafka
from stream_guard.console.sources.sources import make_sources
from stream_guard.core.clock import SystemClock
from stream_guard.core.errors import BrokerError, JsonError, MissingFieldError
from stream_guard.kafka.dead_letter_reader import Survey
from stream_guard.records.dead_letter import read_dead_letter
from stream_guard.records.dead_letter_event import build_dead_letter
from stream_guard.settings import KafkaSettings, Settings
from stream_guard.testing import MemoryRecord
from tests.console import served
from tests.hang import HANG_S

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from stream_guard.console.sources.letter_table import LetterTable
    from stream_guard.core.errors import RecordError
    from stream_guard.records.dead_letter import DeadLetter, DeadLetterFilter
    from tests.console import Served

KAFKA = KafkaSettings(dead_letter_topic="dead", group_id="g", dead_letter_bytes_max=4 << 20)
NO_TEXT = MissingFieldError("no field at '/body' (post.text)")
NOT_JSON = JsonError("not JSON: line 1")


class FakeLetters:
    """What the dead letters need of Kafka.

    Attributes:
        console: the console.
        letters: the topic's one partition.
        begin: its first offset; those before are gone.
        replayed: ids of records that were replayed.
        asked: what was replayed, and whether it was only counted.
        away: whether nothing can be read.
        goes_on: a replay waits for it, after it has told its progress.
        refused: what a replay finds besides.
    """

    def __init__(self) -> None:
        self.console: Served
        self.letters: list[DeadLetter] = []
        self.begin = 0
        self.replayed: set[str] = set()
        self.asked: list[tuple[DeadLetterFilter, bool]] = []
        self.away = False
        self.goes_on = asyncio.Event()
        self.goes_on.set()
        self.refused: dict[str, Any] = {}

    def add(
        self,
        error: RecordError = NO_TEXT,
        *,
        topic: str = "posts",
        key: bytes | None = b"k",
        value: bytes | None = b'{"id": "1"}',
        headers: tuple[tuple[str, bytes], ...] = (),
        failed_ms: int | None = None,
    ) -> DeadLetter:
        """Write a dead letter."""
        offset = len(self.letters)
        source = MemoryRecord(topic, 3, 40 + offset, 1_000, key, value, list(headers))
        made = build_dead_letter(
            source,
            error,
            kafka=KAFKA,
            failed_ms=1_700_000_000_000 + offset if failed_ms is None else failed_ms,
            policy_id=None,
            attempts=1,
        )
        record = MemoryRecord("dead", 0, offset, 0, made.key, made.value, made.headers)
        found = read_dead_letter(record)
        assert found is not None
        self.letters.append(found)
        return found

    def parts(self) -> LettersKafka:
        return LettersKafka(self._read_on, self._at, self._replay)

    async def is_read(self, count: int) -> None:
        """Return once the console has read so many dead letters."""

        def read() -> bool:
            table = self.console.sources.dead_letters.look()
            return table is not None and table.positions.get(0) == count

        await until(read)

    def _refuse(self) -> None:
        if self.away:
            raise BrokerError("no broker answers at kafka.example:9092")

    async def _read_on(self, table: LetterTable) -> None:
        self._refuse()
        begin, end = table.spans({0: (self.begin, len(self.letters))})[0]
        for letter in self.letters[begin:end]:
            table.add(letter)
        for letter_id in self.replayed:
            table.add_replayed(letter_id)
        table.positions[0] = end

    async def _at(self, partition: int, offset: int) -> DeadLetter | None:
        self._refuse()
        return self.letters[offset] if partition == 0 and offset < len(self.letters) else None

    async def _replay(
        self,
        wanted: DeadLetterFilter,
        dry_run: bool,  # noqa: FBT001 - as LettersKafka calls it
        progress: Callable[[int, int], None],
    ) -> Survey:
        self.asked.append((wanted, dry_run))
        progress(1, len(self.letters))
        await self.goes_on.wait()
        self._refuse()
        found = [letter for letter in self.letters if wanted.takes(letter)]
        seen = Survey(source_topics={letter.source_topic for letter in found}, **self.refused)
        seen.reasons.update(letter.reason for letter in found)
        seen.chosen = {each.id: (each.partition, each.offset) for each in found}
        if not dry_run:
            seen.sent = len(found)
            self.replayed |= set(seen.chosen)
        return seen


async def until(condition: Callable[[], bool]) -> None:
    """Return once a condition holds that nobody reports; fail where it does not come to hold."""
    async with asyncio.timeout(HANG_S):
        while not condition():  # noqa: ASYNC110 - a source tells nobody
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def lettering(**console: Any) -> AsyncIterator[FakeLetters]:  # noqa: ANN401 - values of settings
    """Serve a console with dead letters of a fake topic; ``console`` are settings of the section."""
    clock = SystemClock()
    settings = Settings(console={"metrics_urls": [], "topics_interval_s": 0.02, **console})  # type: ignore[arg-type]
    fake = FakeLetters()
    sources = make_sources(settings, clock)
    letters = DeadLetters(settings, clock, fake.parts())
    async with served({}, replace(sources, dead_letters=letters), clock, **console) as fake.console:
        yield fake
