"""The dead letters as a source: the latest ones, one with its content, and replays.

A replay is the command's own function. So each record goes back once, also if the command and the console replay.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

import structlog

from stream_guard.console.sources.letter_table import LetterTable
from stream_guard.console.sources.looked_at import LookedAt
from stream_guard.core.errors import StreamGuardError
from stream_guard.records.dead_letter import replayed_id

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from stream_guard.console.sources.state import SourceState
    from stream_guard.core.clock import Clock
    from stream_guard.kafka.dead_letter_reader import Survey
    from stream_guard.records.dead_letter import DeadLetter, DeadLetterFilter
    from stream_guard.settings import Settings

    Progress = Callable[[int, int], None]

__all__ = ["DeadLetters", "LettersKafka", "Replay"]

_log = structlog.get_logger(__name__)


class LettersKafka(NamedTuple):
    """What the dead letters need of Kafka.

    Attributes:
        read_on: reads what the topic has behind a table's positions into the table.
        at: returns the dead letter at a partition and an offset, with its content; None where there is none.
        replay: sends the records of selected dead letters back, or only counts them (``dry_run``).
    """

    read_on: Callable[[LetterTable], Awaitable[None]]
    at: Callable[[int, int], Awaitable[DeadLetter | None]]
    replay: Callable[[DeadLetterFilter, bool, Progress], Awaitable[Survey]]

    @classmethod
    def of(cls, settings: Settings) -> LettersKafka:
        """Return the real ones, by these settings."""
        from stream_guard.kafka.dead_letter_replay import replay

        return cls(
            lambda table: _read_on(settings, table),
            lambda partition, offset: _at(settings, partition, offset),
            lambda wanted, dry_run, progress: replay(
                settings, wanted, dry_run=dry_run, progress=progress
            ),
        )


@dataclass(slots=True)
class Replay:
    """One replay, or the count of what one would send.

    Attributes:
        who: asked for it.
        reason: of the dead letters; empty for a single one.
        place: of the single one, ``PARTITION/OFFSET``; empty for all of a reason.
        dry_run: whether it only counts.
        started_ms: Unix time in ms.
        state: whether it is done. ``failed``: ``because`` says why.
        sends: whether it has found what to send, and reads the topic again to send it.
        done, total: offsets of the topic that were read, and all of them.
        because: the error, in words. Untrusted text.
        result: what it found and sent.
    """

    who: str
    reason: str
    place: str
    dry_run: bool
    started_ms: int
    state: Literal["running", "done", "failed"] = "running"
    sends: bool = False
    done: int = 0
    total: int = 0
    because: str = ""
    result: Survey | None = None
    task: asyncio.Task[None] | None = field(default=None, repr=False)

    def progress(self, done: int, total: int) -> None:
        """Note how far it is."""
        self.sends = self.sends or done < self.done
        self.done, self.total = done, total


class DeadLetters:
    """The source.

    Args:
        settings: all sections.
        clock: the time.
        kafka: what of Kafka is used.

    Attributes:
        last: the latest replay; one runs at a time.
    """

    def __init__(self, settings: Settings, clock: Clock, kafka: LettersKafka) -> None:
        self._timeout_s = settings.console.work_timeout_s
        self._clock = clock
        self._kafka = kafka
        self._table = LetterTable(settings.console.topics_read_max)
        interval_s = settings.console.topics_interval_s
        self._source = LookedAt("dead_letters", clock, interval_s, self._read)
        self.last: Replay | None = None

    @property
    def state(self) -> SourceState:
        """How it is now."""
        return self._source.state

    def look(self) -> LetterTable | None:
        """Return the latest dead letters; None before they were read."""
        return self._source.look()

    async def look_anew(self) -> LetterTable | None:
        """Return the dead letters as they are now, if that takes no longer than a page may."""
        return await self._source.look_anew()

    async def at(self, partition: int, offset: int) -> DeadLetter | None:
        """Return a dead letter with its content; None where there is none. Raises BrokerError."""
        self._source.refuse_if_away()
        return await self._kafka.at(partition, offset)

    def begin(
        self,
        who: str,
        wanted: DeadLetterFilter,
        *,
        reason: str = "",
        place: str = "",
        dry_run: bool = False,
    ) -> bool:
        """Begin a replay; return False where one is running.

        Args:
            who: asks for it.
            wanted: which dead letters; of the whole topic, also of what the page did not read.
            reason: as in :class:`Replay`.
            place: likewise.
            dry_run: only count what would be sent.

        Raises:
            BrokerError: the topic is away.
        """
        self._source.refuse_if_away()
        if self.last is not None and self.last.state == "running":
            return False
        now_ms = self._clock.wall_ns() // 1_000_000
        self.last = replay = Replay(who, reason, place, dry_run, now_ms)
        replay.task = asyncio.create_task(self._do(replay, wanted), name="console replay")
        return True

    async def stop(self) -> None:
        """Stop the replay, if one is running. What it has sent stays sent, and is marked."""
        replay = self.last
        if replay is not None and replay.task is not None and replay.state == "running":
            replay.task.cancel()
            await asyncio.gather(replay.task, return_exceptions=True)
            if replay.state == "running":  # it had not begun
                replay.state, replay.because = "failed", "stopped"

    async def run(self) -> None:
        """Read the latest dead letters while somebody looks, until cancelled."""
        await self._source.run()

    async def close(self) -> None:
        """Stop what is running."""
        await self.stop()

    async def _read(self) -> LetterTable:
        await self._kafka.read_on(self._table)
        return self._table

    async def _do(self, replay: Replay, wanted: DeadLetterFilter) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                replay.result = await self._kafka.replay(wanted, replay.dry_run, replay.progress)
            replay.state = "done"
            self._source.look()
        except asyncio.CancelledError:
            replay.state, replay.because = "failed", "stopped"
            raise
        except StreamGuardError as error:
            replay.state, replay.because = "failed", str(error)
        except TimeoutError:
            replay.state = "failed"
            replay.because = f"not done within {self._timeout_s:g} s (console.work_timeout_s)"
        except Exception:  # noqa: BLE001 - it is logged, and the person is told
            replay.state, replay.because = "failed", "the console has a bug; its log says more"
            _log.exception("console_replay_failed")


async def _read_on(settings: Settings, table: LetterTable) -> None:
    from stream_guard.kafka.dead_letter_reader import DeadLetterReader
    from stream_guard.kafka.ranges import Span

    async with DeadLetterReader(settings) as reader:
        whole = await reader.whole()
        limits = {tp.partition: (span.begin, span.end) for tp, span in whole.items()}
        wanted = table.spans(limits)
        spans = {tp: Span(*wanted[tp.partition]) for tp in whole}
        async for record in reader.read_spans(spans):
            letter = await reader.letter(record)
            done = replayed_id(record)
            if letter is not None:
                table.add(letter)
            elif done is not None:
                table.add_replayed(done)
            else:
                table.foreign += 1
            table.positions[record.partition] = record.offset + 1
        table.positions |= {partition: end for partition, (_, end) in wanted.items()}


async def _at(settings: Settings, partition: int, offset: int) -> DeadLetter | None:
    from stream_guard.kafka.dead_letter_reader import DeadLetterReader

    async with DeadLetterReader(settings) as reader:
        return await reader.at(partition, offset)
