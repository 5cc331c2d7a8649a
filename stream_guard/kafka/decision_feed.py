"""Reads the whole decisions topic into a member's table, and follows it; outside any group.

Every member needs every decision, so each reads all partitions. Reading begins at the start of the log with each start
of the process: the topic is the only truth.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from stream_guard.core.errors import BrokerError, RecordError, TombstoneError, named
from stream_guard.core.kafka_clients import start_client, stop_client
from stream_guard.judging.human.table import Row, Unread, subject_hash
from stream_guard.kafka.archive import DECISIONS, ensure_compacted
from stream_guard.kafka.protocol_errors import may_pass
from stream_guard.kafka.record_decoding import use_own_decoder
from stream_guard.kafka.security import connection_options
from stream_guard.records.decision import Decision, bare_value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from stream_guard.core.kafka_types import Record
    from stream_guard.judging.human.table import DecisionTable
    from stream_guard.settings import Settings
    from stream_guard.stream.decision_lane import DecisionReader
    from stream_guard.telemetry.metrics import Metrics

_log = structlog.get_logger(__name__)
_POLL_MS: Final = 500
_POLL_RECORDS: Final = 2_000
"""Most decisions that are checked at a time, between two turns of the event loop."""
START_POLL_RECORDS: Final = 10_000
"""Most decisions of a start at a time, which bounds its memory. They are only stored."""
PROGRESS_S: Final = 5.0
"""How often a start says how many decisions it has not read yet."""


class DecisionFeed:
    """Keeps a table up to date.

    Args:
        settings: all sections; ``kafka``, ``decisions`` and ``delivery`` are used.
        reader: reads and refuses decisions.
        table: where they go.
        metrics: shows what is known and what is not read yet.
        show: called with the state for ``/healthz`` whenever it changes.
        reset: called with each ``breaker_reset``, also with those that are read at the start.
    """

    def __init__(
        self,
        settings: Settings,
        reader: DecisionReader,
        table: DecisionTable,
        metrics: Metrics,
        *,
        show: Callable[[Mapping[str, Any]], None],
        reset: Callable[[Decision], None] | None = None,
    ) -> None:
        self._settings = settings
        self._reader = reader
        self._table = table
        self._metrics = metrics
        self._show = show
        self._reset = reset
        self._consumer: Any = None
        self._positions: dict[TopicPartition, int] = {}
        self._looked_s = 0.0

    async def load(self) -> None:
        """Create the topic if it is missing, and read it to its present end; try again while brokers are away.

        Raises:
            BrokerError: it does not succeed within ``decisions.start_timeout_s``, or no retry can help.
        """
        topic, began_s = self._reader.topic, time.monotonic()
        last: Exception | None = None
        try:
            async with asyncio.timeout(self._settings.decisions.start_timeout_s):
                while (last := await self._try_to_load()) is not None:
                    if isinstance(last, KafkaError) and not may_pass(last):
                        break
                    _log.warning("decisions_poll_failed", error=type(last).__name__)
                    await self.close()
                    await asyncio.sleep(self._settings.kafka.retry_backoff_ms / 1_000)
        except TimeoutError as error:
            last = last or error
        if last is not None:
            message = (
                f"{topic!r} (kafka.decision_topic) could not be read to its end within "
                f"{self._settings.decisions.start_timeout_s:g} s (decisions.start_timeout_s): {named(last)}"
            )
            raise BrokerError(message) from last
        took_s = round(time.monotonic() - began_s, 1)
        _log.info("decisions_read", topic=topic, subjects=len(self._table), took_s=took_s)
        self._tell()

    async def _try_to_load(self) -> Exception | None:
        """Read on to the present end; return the error after which somebody may try again."""
        kafka = self._settings.kafka
        try:
            await ensure_compacted(kafka, self._reader.topic, DECISIONS)
            use_own_decoder()
            self._consumer = AIOKafkaConsumer(
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                isolation_level="read_committed",
                fetch_max_wait_ms=kafka.fetch_max_wait_ms,
                **connection_options(kafka),
            )
            await start_client(self._consumer)
            await self._take_partitions()
            await self._read_to(await self._consumer.end_offsets(list(self._positions)))
        except (KafkaError, OSError, TimeoutError) as error:
            return error
        return None

    async def _read_to(self, ends: Mapping[TopicPartition, int]) -> None:
        """Read on to these offsets. Records go into the table while the next ones are fetched."""
        began_s = told_s = time.monotonic()
        writing: asyncio.Task[None] | None = None
        try:
            while behind := sum(max(0, end - self._positions[tp]) for tp, end in ends.items()):
                if (now_s := time.monotonic()) - told_s > PROGRESS_S:
                    told_s = now_s
                    took_s = round(now_s - began_s, 1)
                    _log.info("decisions_reading", behind=behind, took_s=took_s)
                self._metrics.decisions_behind.set(behind)
                self._show({"reading": True, "behind": behind})
                polled = await self._poll(START_POLL_RECORDS)
                unread = [one for records in polled.values() for one in self._unread(records)]
                if writing is not None:
                    await asyncio.wait([writing])
                    writing.result()
                writing = asyncio.create_task(asyncio.to_thread(self._table.stage, unread))
                await self._move_on()
            if writing is not None:
                await asyncio.wait([writing])
                writing.result()
            writing = asyncio.create_task(asyncio.to_thread(self._table.settle))
            await asyncio.wait([writing])
        finally:
            # A thread cannot be cancelled, and nobody else may use the table before it ends.
            if writing is not None:
                await asyncio.wait([writing])
                writing.result()  # also after a failed poll: rows that are not there must not count as read

    async def watch(self) -> BaseException:
        """Follow the topic; return the error after which it cannot be read any more."""
        while True:
            try:
                if (
                    time.monotonic() - self._looked_s
                    > self._settings.kafka.metadata_max_age_ms / 1_000
                ):
                    await self._take_partitions()
                polled = await self._poll(_POLL_RECORDS)
                self._table.load(row for records in polled.values() for row in self._rows(records))
                await self._move_on()
            except (KafkaError, OSError) as error:
                if isinstance(error, KafkaError) and not may_pass(error):
                    message = f"{self._reader.topic!r} (kafka.decision_topic) cannot be read: {named(error)}"
                    return BrokerError(message)
                _log.warning("decisions_poll_failed", error=type(error).__name__)
                await asyncio.sleep(self._settings.kafka.retry_backoff_ms / 1_000)
            self._tell()

    async def close(self) -> None:
        """Close the connection, within ``delivery.stop_timeout_s``."""
        if self._consumer is not None:
            await stop_client(self._consumer, self._settings.delivery.stop_timeout_s)

    async def _take_partitions(self) -> None:
        """Read all partitions of the topic, new ones from their start."""
        cluster = await self._consumer._client.fetch_all_metadata()  # noqa: SLF001 - of a topic that is not created by asking
        numbers = cluster.partitions_for_topic(self._reader.topic) or ()
        known = {TopicPartition(self._reader.topic, number) for number in numbers}
        self._looked_s = time.monotonic()
        if known <= set(self._positions) and self._consumer.assignment():
            return
        self._consumer.assign(sorted(known | set(self._positions)))
        added = sorted(known - set(self._positions))
        if added:
            self._positions |= await self._consumer.beginning_offsets(added)
        for tp, position in self._positions.items():
            self._consumer.seek(tp, position)

    async def _poll(self, records_max: int) -> Mapping[TopicPartition, Sequence[Record]]:
        polled: Mapping[TopicPartition, Sequence[Record]] = await self._consumer.getmany(
            timeout_ms=_POLL_MS, max_records=records_max
        )
        return polled

    async def _move_on(self) -> None:
        """Take the consumer's positions, once nothing before them can be lost any more."""
        for tp in self._positions:
            # It passes markers and compacted offsets, too.
            self._positions[tp] = await self._consumer.position(tp)

    def _unread(self, records: Sequence[Record]) -> Iterator[Unread]:
        """Yield one partition's records as a start keeps them, in their order; act on each ``breaker_reset``."""
        unread = self._reader.unread
        for record in records:
            seen = unread(record)
            if seen is not None:
                yield seen
                continue
            for decision, value, key in self._rows([record]):
                if key is None:
                    continue
                subject = 0
                if decision is not None and decision.about is not None:
                    content = decision.about.content
                    subject = subject_hash(decision.about.policy.id, content.tenant, content.id)
                yield Unread(key, record.timestamp, value, subject)

    def _rows(self, records: Sequence[Record]) -> Iterator[Row]:
        """Yield the rows of one partition's records, in their order; act on each ``breaker_reset``."""
        for record in records:
            try:
                decision = self._reader.skim(record)
            except TombstoneError:
                yield Row(None, None, record.key)
                continue
            except RecordError:
                continue  # the owner of the partition makes it a dead letter
            if decision.about is not None:
                assert record.value is not None, "it is no tombstone"
                yield Row(decision, bare_value(record.value, record.headers), record.key)
            elif self._reset is not None:
                assert isinstance(decision, Decision), "the quick check knows no breaker_reset"
                self._reset(decision)

    def _tell(self) -> None:
        ends = {tp: self._consumer.highwater(tp) for tp in self._positions}
        behind = sum(
            max(0, end - self._positions[tp]) for tp, end in ends.items() if end is not None
        )
        self._metrics.decision_subjects.set(len(self._table))
        self._metrics.decisions_behind.set(behind)
        self._show({"subjects": len(self._table), "behind": behind})
