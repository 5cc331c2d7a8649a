"""Sends the records of dead letters back to their topics, each once.

Theory of operation. A replay first takes over the transactional id of the dead-letter topic. This aborts the open
transaction of another replay, which can then send nothing more. Then the replay asks for the topic's end and reads the
topic, so it sees every marker of every earlier replay. Each transaction holds records and their markers: readers of
committed records see both or neither, even after a crash. Nothing is committed that was not acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from typing import TYPE_CHECKING, Any, Final, Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, ProducerFenced

from stream_guard.core.english import count_of
from stream_guard.core.errors import BrokerError, named
from stream_guard.core.kafka_clients import start_client, stop_client
from stream_guard.kafka.dead_letter_reader import DeadLetterReader, survey
from stream_guard.kafka.security import connection_options
from stream_guard.kafka.topics import require_topics
from stream_guard.records.dead_letter import DeadLetter, DeadLetterFilter, marker, replay_headers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection

    from stream_guard.kafka.dead_letter_reader import Survey
    from stream_guard.settings import KafkaSettings, Settings

_TRANSACTION_RECORDS_MAX: Final = 200
_TRANSACTION_BYTES_MAX: Final = 4 << 20
# An open transaction holds readers of committed records back; after a crash, for no longer than this.
_TRANSACTION_TIMEOUT_MS: Final = 30_000
_END_S: Final = 5.0


def transactional_id(topic: str) -> str:
    """Return the transactional id of replays from this dead-letter topic."""
    return f"stream-guard.dlq-replay.{topic}"


def is_input(settings: KafkaSettings, topic: str) -> bool:
    """Return whether the settings read a topic."""
    if topic in settings.own_topics:
        return False
    if settings.topic_pattern is not None:
        return re.match(settings.topic_pattern, topic) is not None
    return topic in settings.topics


async def replay(
    settings: Settings,
    wanted: DeadLetterFilter,
    *,
    dry_run: bool,
    also_to: Collection[str] = (),
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> Survey:
    """Send the records of dead letters back to their topics, each once, and say how many.

    Args:
        settings: the broker and the topic, and the registry of dead letters in Avro.
        wanted: the selected dead letters.
        dry_run: send nothing.
        also_to: topics that may be written although the settings do not read them.
        progress: called with the offsets read and their total.

    Raises:
        BrokerError: the broker does not answer, a topic is missing, or another replay has taken over. Records that
        were sent are marked; a second replay sends the rest.
    """
    async with DeadLetterReader(settings, progress) as reader, contextlib.AsyncExitStack() as stack:
        producer = None
        if not dry_run:
            producer = _Replayer(settings.kafka)
            await stack.enter_async_context(producer)  # before the ends are asked for
        ends = await reader.ends()
        seen = await survey(
            reader,
            ends,
            wanted,
            may_write=lambda topic: topic in also_to or is_input(settings.kafka, topic),
        )
        await require_topics(
            settings.kafka, *sorted(seen.source_topics), named_by="the source of dead letters"
        )
        if producer is None or not seen.chosen:
            return seen
        places = set(seen.chosen.values())
        async for letter in reader.letters(ends):
            if (letter.partition, letter.offset) in places:
                await producer.add(letter)
        await producer.flush()
        seen.sent = producer.sent
        return seen


class _Replayer:
    """Sends records back and marks them, some in each transaction.

    Attributes:
        sent: records in committed transactions.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._producer = AIOKafkaProducer(
            transactional_id=transactional_id(settings.dead_letter_topic),
            transaction_timeout_ms=_TRANSACTION_TIMEOUT_MS,
            acks="all",
            enable_idempotence=True,
            compression_type=None
            if settings.compression_type == "none"
            else settings.compression_type,
            max_batch_size=settings.batch_bytes_max,
            max_request_size=max(settings.batch_bytes_max, settings.dead_letter_bytes_max) * 2,
            **connection_options(settings),
        )
        self._letters: list[DeadLetter] = []
        self._bytes = 0
        self._open = False
        self.sent = 0

    async def __aenter__(self) -> Self:
        try:
            async with self._telling():
                await start_client(self._producer)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._open:  # stopped in the middle
            # Where the broker does not answer, the next owner or the timeout aborts it.
            with contextlib.suppress(Exception):
                async with asyncio.timeout(_END_S):
                    await self._producer.abort_transaction()
        await stop_client(self._producer, _END_S)

    async def add(self, letter: DeadLetter) -> None:
        """Add one; send a transaction once there are enough."""
        self._letters.append(letter)
        self._bytes += len(letter.key or b"") + len(letter.value or b"")
        if len(self._letters) >= _TRANSACTION_RECORDS_MAX or self._bytes >= _TRANSACTION_BYTES_MAX:
            await self.flush()

    async def flush(self) -> None:
        """Send the added records and their markers in one transaction."""
        letters, self._letters, self._bytes = self._letters, [], 0
        if not letters:
            return
        now_ms = time.time_ns() // 1_000_000
        async with self._telling():
            await self._producer.begin_transaction()
            self._open = True
            futures: list[asyncio.Future[Any]] = []
            for letter in letters:
                futures.append(await self._send_back(letter))
                key, value, headers = marker(letter, now_ms)
                futures.append(
                    await self._producer.send(
                        letter.topic, value, key=key, partition=letter.partition, headers=headers
                    )
                )
            # aiokafka commits a transaction whose records failed, so each is awaited first.
            await asyncio.gather(*futures)
            await self._producer.commit_transaction()
            self._open = False
        self.sent += len(letters)

    async def _send_back(self, letter: DeadLetter) -> asyncio.Future[Any]:
        there = await self._producer.partitions_for(letter.source_topic)
        # Its own partition, because the platform's partitioner is unknown; the key's partition if the topic has fewer
        # now.
        partition = letter.source_partition if letter.source_partition in there else None
        sent: asyncio.Future[Any] = await self._producer.send(
            letter.source_topic,
            letter.value,
            key=letter.key,
            partition=partition,
            headers=replay_headers(letter),
        )
        return sent

    @contextlib.asynccontextmanager
    async def _telling(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._settings.request_timeout_ms / 1_000 + 5):
                yield
        except ProducerFenced as error:
            message = (
                f"another replay of {self._settings.dead_letter_topic!r} has taken over; this one sent {self.sent} "
                "records and ends"
            )
            raise BrokerError(message) from error
        except (KafkaError, OSError, TimeoutError) as error:
            message = (
                f"the replay stopped after {count_of(self.sent, 'record')}: {named(error)}; run it again for the "
                "rest; sent records are marked and are not sent twice"
            )
            raise BrokerError(message) from error
