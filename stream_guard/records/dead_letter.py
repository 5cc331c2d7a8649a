"""Reads, filters and replays dead letters. Pure.

The dead-letter topic also holds *markers*. A replay writes one into the partition of the dead letter, in the same
transaction as the record that it sends back, so that the next replay can ignore the dead letter.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import orjson

from stream_guard.core.errors import DecodeError, RecordError, SchemaError
from stream_guard.records.avro_contract import FORMAT_HEADER
from stream_guard.records.dead_letter_event import FIRST_HEADER, source_id
from stream_guard.records.decoding.frame import find_frame

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_guard.core.kafka_types import Record
    from stream_guard.records.decoding.schema import Schemas

MARKER_HEADER: Final = "sg_marker"
MARKER_REPLAYED: Final = b"replayed"
REPLAYS_HEADER: Final = "sg_replays"
REPLAY_OF_HEADER: Final = "sg_replay_of"
_DEPTH_MAX: Final = 8
_NUMBER: Final = re.compile(r"-?[0-9]{1,19}")
_NEEDED: Final = ("sg_topic", "sg_partition", "sg_offset", "sg_timestamp_ms")

Headers: TypeAlias = "tuple[tuple[str, bytes | None], ...]"


@dataclass(slots=True, frozen=True)
class DeadLetter:
    """One dead letter.

    Attributes:
        topic, partition, offset: the place of the dead letter.
        source_topic, source_partition, source_offset: the place of the source record.
        source_ms: timestamp of the source record, Unix time in ms.
        id: id of the source record; the same for each duplicate, and for each policy that failed.
        key, value: of the source record; shortened if ``cut``.
        headers: of the source record, without the ``sg_*`` headers of the dead letter.
        about: the ``sg_*`` headers of the dead letter, by name.
        value_bytes: length of the value; None if it is null.
        replays: how often the record had been replayed before it failed.
        cut: whether a part of the source record is missing.
        unread: why the record inside Avro cannot be read; None if it can. Key, value and headers are missing then.
    """

    topic: str
    partition: int
    offset: int
    source_topic: str
    source_partition: int
    source_offset: int
    source_ms: int
    id: str
    key: bytes | None
    value: bytes | None
    headers: Headers
    about: Mapping[str, str]
    value_bytes: int | None
    replays: int
    cut: bool
    unread: str | None = None

    @property
    def reason(self) -> str:
        """The reason of the error, for example ``json``."""
        return self.about[FIRST_HEADER]

    @property
    def failed_ms(self) -> int:
        """When the record failed, Unix time in ms; 0 if unreadable."""
        return _number(self.about.get("sg_failed_ms")) or 0

    def without_content(self) -> DeadLetter:
        """Return a copy without key, value and headers, which takes less memory."""
        return replace(self, key=None, value=None, headers=())

    def describe(self) -> dict[str, Any]:
        """Return a summary for JSON, without key, value and headers of the record."""
        about = self.about
        return {
            "id": self.id,
            "topic": self.topic,
            "partition": self.partition,
            "offset": self.offset,
            "reason": self.reason,
            "error": about.get("sg_error"),
            "message": about.get("sg_message"),
            "stage": about.get("sg_stage"),
            "policy": about.get("sg_policy"),
            "group": about.get("sg_group"),
            "attempts": _number(about.get("sg_attempts")),
            "failed_ms": self.failed_ms,
            "source": {
                "topic": self.source_topic,
                "partition": self.source_partition,
                "offset": self.source_offset,
                "timestamp_ms": self.source_ms,
            },
            "value_bytes": self.value_bytes,
            "cut": self.cut,
            **({} if self.unread is None else {"unread": self.unread}),
            "replays_before": self.replays,
        }


def needs_schema(record: Record) -> bool:
    """Return whether a record of the topic is a dead letter in Avro."""
    headers = record.headers
    return any(name == FORMAT_HEADER for name, _ in headers[_block(headers) or 0 :])


def _block(headers: Sequence[tuple[str, bytes | None]]) -> int | None:
    """Return where the block of a dead letter's own headers begins; None if there is none."""
    return max((n for n, (name, _) in enumerate(headers) if name == FIRST_HEADER), default=None)


def read_dead_letter(record: Record, schemas: Schemas | None = None) -> DeadLetter | None:
    """Return the dead letter in a record of the topic; None if it is a marker or was not written by Stream Guard.

    Args:
        record: of the dead-letter topic.
        schemas: of Avro, by id, whose bytes stay bytes. A dead letter whose schema is missing has ``unread``.
    """
    headers = tuple(record.headers)
    first = _block(headers)
    if first is None:
        return None
    about = {name: (value or b"").decode("utf-8", "replace") for name, value in headers[first:]}
    value: bytes | None = record.value
    own: Headers = headers[:first]
    unread = None
    if FORMAT_HEADER in about:
        try:
            value, own = _unwrapped(record, schemas or {})
        except RecordError as error:
            value, own, unread = None, (), str(error)
    topic, *numbers = (about.get(name) for name in _NEEDED)
    places = [_number(text) for text in numbers]
    if not topic or None in places:
        return None
    partition, offset, timestamp_ms = (place for place in places if place is not None)
    return DeadLetter(
        record.topic,
        record.partition,
        record.offset,
        topic,
        partition,
        offset,
        timestamp_ms,
        source_id(topic, partition, offset, timestamp_ms),
        record.key,
        value,
        own,
        about,
        None if value is None else len(value),
        _replays(own),
        # What cannot be read cannot be replayed either.
        cut=unread is not None or any(name.startswith("sg_cut_") for name in about),
        unread=unread,
    )


def _unwrapped(record: Record, schemas: Schemas) -> tuple[bytes | None, Headers]:
    """Return the value and headers of the source record inside a dead letter in Avro.

    Raises:
        RecordError: the schema is missing, or the bytes do not follow it.
    """
    found = find_frame(record.value or b"", ())
    if found is None:
        raise DecodeError("the dead letter is Avro without a schema id")
    key, frame, start = found
    schema = schemas.get(key)
    if schema is None:
        raise SchemaError("the dead letter is Avro, and its schema is not here; set registry.url")
    if isinstance(schema, SchemaError):
        raise SchemaError(str(schema))
    document, _ = schema.decode(frame, frame, start, _DEPTH_MAX)
    try:
        value = document["value"]
        headers = tuple((str(each["name"]), each["value"]) for each in document["headers"])
    except (KeyError, TypeError):
        raise DecodeError("the dead letter's Avro has no value and headers of a record") from None
    if not all(
        each is None or isinstance(each, bytes) for each in (value, *dict(headers).values())
    ):
        raise DecodeError("the dead letter's Avro has a value or a header that is not bytes")
    return value, headers


def _replays(headers: Headers) -> int:
    counts = [value or b"" for name, value in headers if name == REPLAYS_HEADER]
    return max(0, _number(counts[-1].decode("ascii", "replace")) or 0) if counts else 0


def replayed_id(record: Record) -> str | None:
    """Return the id of the replayed record that a marker names; None if the record is not a marker."""
    headers = dict(record.headers)
    if headers.get(MARKER_HEADER) != MARKER_REPLAYED or FIRST_HEADER in headers:
        return None
    return (headers.get("sg_id") or b"").decode("ascii", "replace") or None


def replay_headers(letter: DeadLetter) -> list[tuple[str, bytes | None]]:
    """Return the headers of the record that a replay sends: the original ones and the number of replays."""
    ours = (REPLAYS_HEADER, REPLAY_OF_HEADER)
    return [
        *((name, value) for name, value in letter.headers if name not in ours),
        (REPLAYS_HEADER, str(letter.replays + 1).encode()),
        (REPLAY_OF_HEADER, letter.id.encode()),
    ]


def marker(letter: DeadLetter, now_ms: int) -> tuple[bytes, bytes | None, list[tuple[str, bytes]]]:
    """Return key, value and headers of the marker of a replayed record.

    The value is for people. It is null if the dead letter is Avro, so that readers of Avro meet no JSON.

    Args:
        letter: the replayed dead letter.
        now_ms: Unix time in ms.
    """
    headers = [(MARKER_HEADER, MARKER_REPLAYED), ("sg_id", letter.id.encode())]
    if FORMAT_HEADER in letter.about:
        return letter.id.encode(), None, headers
    value = {
        "replayed": letter.id,
        "replayed_ms": now_ms,
        "dead_letter_offset": letter.offset,
        "source": letter.describe()["source"],
    }
    return letter.id.encode(), orjson.dumps(value), headers


@dataclass(slots=True, frozen=True)
class DeadLetterFilter:
    """A filter of dead letters; a field that is None or empty accepts all.

    Attributes:
        reasons: reasons to accept.
        topic, partition: of the source record.
        offset_min, offset_max: of the source record, both included.
        since_ms, until_ms: when the record failed, Unix time in ms; the second excluded.
        ids: ids to accept.
    """

    reasons: frozenset[str] = field(default_factory=frozenset)
    topic: str | None = None
    partition: int | None = None
    offset_min: int | None = None
    offset_max: int | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    ids: frozenset[str] = field(default_factory=frozenset)

    def takes(self, letter: DeadLetter) -> bool:
        """Return whether the filter accepts a dead letter."""
        return (
            (not self.reasons or letter.reason in self.reasons)
            and (not self.ids or letter.id in self.ids)
            and (self.topic is None or letter.source_topic == self.topic)
            and (self.partition is None or letter.source_partition == self.partition)
            and (self.offset_min is None or letter.source_offset >= self.offset_min)
            and (self.offset_max is None or letter.source_offset <= self.offset_max)
            and (self.since_ms is None or letter.failed_ms >= self.since_ms)
            and (self.until_ms is None or letter.failed_ms < self.until_ms)
        )


@dataclass(slots=True, frozen=True)
class Place:
    """The place of a record, written ``TOPIC/PARTITION/OFFSET``."""

    topic: str
    partition: int
    offset: int

    @classmethod
    def parse(cls, text: str) -> Place | None:
        """Return the place that a text names; None if it is not one."""
        parts: Sequence[str] = text.rsplit("/", 2)
        numbers = [_number(part) for part in parts[1:]]
        if len(parts) != 3 or not parts[0] or None in numbers:  # noqa: PLR2004 - its three parts
            return None
        partition, offset = (number for number in numbers if number is not None)
        return cls(parts[0], partition, offset)


def _number(text: str | None) -> int | None:
    """Return a whole number of 64 bits, which may be negative; None if the text is not one."""
    if text is None or not _NUMBER.fullmatch(text):
        return None
    number = int(text)
    return number if -(1 << 63) <= number < 1 << 63 else None
