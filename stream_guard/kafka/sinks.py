"""Writes a backtest's verdicts to a file or to a topic of their own, and reads them back to resume.

Topics that the live service writes or reads are rejected. Existing files are not overwritten.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any, Protocol, Self

import orjson
from aiokafka.errors import KafkaError

from stream_guard.core.errors import BrokerError, OperatorError, RecordError, SettingsError, named
from stream_guard.kafka.batches import discard_producer, make_producer, start_producer
from stream_guard.kafka.ranges import RangeReader
from stream_guard.kafka.registry.output import open_topic_output
from stream_guard.kafka.registry.written import open_verdicts
from stream_guard.kafka.topics import require_topics
from stream_guard.records.verdict_event import VerdictEvents

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from aiokafka import AIOKafkaProducer

    from stream_guard.core.kafka_types import Record
    from stream_guard.records.avro_output import AvroOutput
    from stream_guard.settings import Settings

    Made = Sequence[tuple[Record, dict[str, Any]]]

_TRACEPARENT = "00-" + "0" * 31 + "1-" + "0" * 15 + "1-00"
_STOP_S = 5.0


class Sink(Protocol):
    """Takes verdicts; an async context manager."""

    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *_: object) -> None: ...
    def written(self) -> AsyncIterator[dict[str, Any]]:
        """Yield the verdicts of an earlier run; called before anything is written."""

    async def write(self, made: Made, published_ms: int) -> None:
        """Return once these are safe. Raises OperatorError, BrokerError."""


class NoSink:
    """Writes nothing, for a backtest that only reports."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return

    async def written(self) -> AsyncIterator[dict[str, Any]]:
        """Yield nothing."""
        nothing: tuple[dict[str, Any], ...] = ()
        for verdict in nothing:
            yield verdict

    async def write(self, made: Made, published_ms: int) -> None:
        """Forget them."""


class FileSink:
    """A file with one verdict per line.

    Args:
        path: of the file; it must not exist, unless it is resumed.
        resume: whether to continue an existing file.
    """

    def __init__(self, path: Path, *, resume: bool) -> None:
        self._path = path
        self._resume = resume
        self._file: BinaryIO | None = None

    async def __aenter__(self) -> Self:
        try:
            self._file = await asyncio.to_thread(self._open)
        except FileExistsError as error:
            raise _exists(self._path) from error
        except OSError as error:
            message = f"--output {self._path}: {error.strerror}"
            raise OperatorError(message) from error
        return self

    def _open(self) -> BinaryIO:
        if not self._resume:
            return self._path.open("x+b")
        file = self._path.open("a+b")
        # A line that a crash truncated is judged again.
        file.seek(0)
        whole = 0
        for line in file:
            whole += len(line) if line.endswith(b"\n") else 0
        file.truncate(whole)
        file.seek(0)
        return file

    async def __aexit__(self, *_: object) -> None:
        if self._file is not None:
            await asyncio.to_thread(self._file.close)

    async def written(self) -> AsyncIterator[dict[str, Any]]:
        """Yield its verdicts. Raises OperatorError if a line is not a verdict."""
        assert self._file is not None, "entered first"
        for number, line in enumerate(self._file, 1):
            try:
                verdict = orjson.loads(line)
                _ = verdict["source"]["offset"], verdict["policy"]["sha256"]
            except (orjson.JSONDecodeError, KeyError, TypeError) as error:
                message = f"--output {self._path}:{number}: is not a verdict; --resume needs the file of a backtest"
                raise OperatorError(message) from error
            yield verdict

    async def write(self, made: Made, published_ms: int) -> None:
        """Append them, and flush."""
        del published_ms
        await asyncio.to_thread(self._append, b"".join(orjson.dumps(v) + b"\n" for _, v in made))

    def _append(self, lines: bytes) -> None:
        assert self._file is not None, "entered first"
        try:
            self._file.write(lines)
            self._file.flush()
        except OSError as error:
            raise OperatorError(f"--output {self._path}: {error.strerror}") from error


class TopicSink:
    """A topic for these verdicts, which must exist.

    Args:
        settings: all sections; ``kafka``, ``output`` and ``registry`` are used.
        topic: its name.
    """

    def __init__(self, settings: Settings, topic: str) -> None:
        self._all = settings
        self._settings = settings.kafka
        self._topic = topic
        self._avro: AvroOutput | None = None
        self._producer: AIOKafkaProducer | None = None

    async def __aenter__(self) -> Self:
        await require_topics(self._settings, self._topic)
        self._avro = await open_topic_output(self._all, self._topic)
        producer = make_producer(self._settings)
        try:
            await start_producer(producer, self._settings)
        except (KafkaError, OSError, TimeoutError) as error:
            raise BrokerError(f"the producer cannot start: {named(error)}") from error
        self._producer = producer
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._producer is not None:
            await discard_producer(self._producer, timeout_s=_STOP_S)

    async def written(self) -> AsyncIterator[dict[str, Any]]:
        """Yield its verdicts; other records are ignored."""
        async with RangeReader(self._settings) as reader, open_verdicts(self._all) as reading:
            async for record in reader.read(await reader.whole(self._topic)):
                try:
                    verdict = await reading.read(record.value)
                    _ = verdict["source"]["offset"], verdict["policy"]["sha256"]
                except (orjson.JSONDecodeError, RecordError, KeyError, TypeError):
                    continue
                yield verdict

    async def write(self, made: Made, published_ms: int) -> None:
        """Send them, and wait until the broker has all of them."""
        assert self._producer is not None, "entered first"
        events = VerdictEvents(published_ms, self._settings.cloudevents_mode)
        try:
            async with asyncio.timeout(self._settings.request_timeout_ms / 1_000):
                sent = []
                for record, verdict in made:
                    value, headers = events.encode(verdict, _TRACEPARENT, self._avro)
                    sent.append(
                        await self._producer.send(
                            self._topic, value, key=record.key, headers=headers
                        )
                    )
                await asyncio.gather(*sent)
        except (KafkaError, OSError, TimeoutError) as error:
            message = f"writing {self._topic!r} failed: {named(error)}; continue with --resume"
            raise BrokerError(message) from error


def check_output_file(path: Path, *, resume: bool) -> None:
    """Refuse a file that :class:`FileSink` would refuse, before anybody connects to a broker. Raises OperatorError."""
    if path.is_dir():
        raise OperatorError(f"--output {path}: is a folder; name a file")
    if not path.parent.is_dir():
        raise OperatorError(f"--output {path}: there is no folder {path.parent}; create it")
    if path.exists() and not resume:
        raise _exists(path)


def _exists(path: Path) -> OperatorError:
    message = (
        f"--output {path}: exists already; name another file, or continue this one with --resume"
    )
    return OperatorError(message)


def check_output_topic(settings: Settings, topic: str, read: str) -> None:
    """Reject a topic that the live service reads or writes, or that this backtest reads.

    Raises:
        SettingsError: the message says what uses the topic.
    """
    name = "--topic" if topic == read else user_of_topic(settings, topic)
    if name is not None:
        message = (
            f"--output-topic {topic}: is {name}: backtest verdicts must not mix with live records; "
            "create a topic for them"
        )
        raise SettingsError(message)


def user_of_topic(settings: Settings, topic: str) -> str | None:
    """Return the setting by which the live service reads or writes a topic; None where it does neither."""
    kafka, cascade = settings.kafka, settings.cascade
    whose: dict[str | None, str] = {
        cascade.escalation_topic: "cascade.escalation_topic",
        cascade.escalated_topic: "cascade.escalated_topic",
        kafka.verdict_topic: "kafka.verdict_topic",
        kafka.dead_letter_topic: "kafka.dead_letter_topic",
        kafka.archive_topic: "kafka.archive_topic",
        kafka.shadow_topic: "kafka.shadow_topic",
        kafka.reasoning_topic: "kafka.reasoning_topic",
        kafka.review_topic: "kafka.review_topic",
        kafka.decision_topic: "kafka.decision_topic",
        kafka.breaker_topic: "kafka.breaker_topic",
        kafka.audit_topic: "kafka.audit_topic",
        **dict.fromkeys(kafka.topics, "kafka.topics"),
    }
    name = whose.get(topic)
    if name is None and kafka.topic_pattern:
        try:
            name = "kafka.topic_pattern" if re.match(kafka.topic_pattern, topic) else None
        except re.error:
            name = None
    return name
