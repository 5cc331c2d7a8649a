"""Builds dead letters: the original bytes and headers, then ``sg_*`` headers with place, time, stage and cause. Pure.

The ``sg_*`` headers come last, in one block that begins with ``sg_reason``. Headers before the block belong to the
record, even if a name is the same. ``docs/guides/dead-letters.md`` describes each header.

Bytes are never shortened without a header that says so, and no header holds text of a post.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final, NamedTuple

from stream_guard.core.kafka_types import OversizedValue

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.core.errors import RecordError
    from stream_guard.core.kafka_types import Record
    from stream_guard.settings import KafkaSettings

FIRST_HEADER: Final = "sg_reason"
# The space for key and headers beside a value of bytes_max, within a topic's default limit of 1 MiB.
_ASIDE_BYTES_MAX: Final = 64 << 10
_KEY_BYTES_MAX: Final = _ASIDE_BYTES_MAX // 2
# Of the value, of the key and of the record's own headers, where the topic refuses the dead letter as too large.
_SMALLER_BYTES_MAX: Final = 256


class DeadLetterEvent(NamedTuple):
    """A dead letter to publish: the record's bytes, cut if they are too large, and the headers."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


def source_id(topic: str, partition: int, offset: int, timestamp_ms: int) -> str:
    """Return the id of a source record: 32 hex digits, the same for each failure and each policy.

    Args:
        topic: the record's topic.
        partition: the record's partition.
        offset: the record's offset.
        timestamp_ms: the record's timestamp, Unix time in ms; it differs where a topic was created again.
    """
    place = f"{topic}\0{partition}\0{offset}\0{timestamp_ms}"
    return hashlib.sha256(place.encode()).hexdigest()[:32]


def build_dead_letter(
    record: Record,
    error: RecordError,
    *,
    kafka: KafkaSettings,
    failed_ms: int,
    policy_id: str | None,
    attempts: int,
) -> DeadLetterEvent:
    """Return a record's dead letter.

    Args:
        record: the record that cannot be judged.
        error: the cause.
        kafka: the consumer group, the headers of other conventions, and ``dead_letter_bytes_max``: a longer value is
            cut to that, with its length and sha256 in the headers. Key and headers are cut if they exceed 64 KiB or
            the space that the value leaves.
        failed_ms: when the record failed, Unix time in ms.
        policy_id: the policy that was judging; None if the record failed before.
        attempts: how often the record was tried since it was read.
    """
    value, bytes_max = record.value, kafka.dead_letter_bytes_max
    about: list[tuple[str, str]] = [
        (FIRST_HEADER, error.reason),
        ("sg_error", type(error).__name__),
        ("sg_message", str(error)),
        ("sg_stage", error.stage),
        ("sg_topic", record.topic),
        ("sg_partition", str(record.partition)),
        ("sg_offset", str(record.offset)),
        ("sg_timestamp_ms", str(record.timestamp)),
        ("sg_group", kafka.group_id),
        ("sg_failed_ms", str(failed_ms)),
        ("sg_attempts", str(attempts)),
        ("sg_id", source_id(record.topic, record.partition, record.offset, record.timestamp)),
    ]
    if policy_id is not None:
        about.append(("sg_policy", policy_id))
    if isinstance(value, OversizedValue):
        # Its length is that of the whole record, and unknown where reading ended before it.
        about.append(("sg_cut_from_bytes", str(value.size_bytes or value.limit_bytes)))
    elif value is not None and len(value) > bytes_max:
        about.append(("sg_cut_from_bytes", str(len(value))))
        about.append(("sg_cut_sha256", hashlib.sha256(value).hexdigest()))
        value = value[:bytes_max]
    key, headers = record.key, list(record.headers)
    aside_bytes_max = max(_ASIDE_BYTES_MAX, bytes_max - len(value or b""))
    if len(key or b"") + _size_bytes(headers) > aside_bytes_max:
        if key is not None and len(key) > _KEY_BYTES_MAX:
            about.append(("sg_cut_key_from_bytes", str(len(key))))
            key = key[:_KEY_BYTES_MAX]
        kept = _largest_dropped(headers, aside_bytes_max - len(key or b""))
        if len(kept) < len(headers):
            about.append(("sg_cut_headers", str(len(headers) - len(kept))))
            headers = kept
    for convention in kafka.dead_letter_headers:
        about += _COPIES[convention](record, error, kafka.group_id)
    headers += [(name, text.encode("utf-8", "backslashreplace")) for name, text in about]
    return DeadLetterEvent(key, value, headers)


def _as_connect(record: Record, error: RecordError, group: str) -> list[tuple[str, str]]:
    """Return a dead letter's headers under Kafka Connect's names (KIP-298, ``DeadLetterQueueReporter``)."""
    prefix = "__connect.errors."
    return [
        (f"{prefix}topic", record.topic),
        (f"{prefix}partition", str(record.partition)),
        (f"{prefix}offset", str(record.offset)),
        (f"{prefix}connector.name", group),
        (f"{prefix}stage", error.stage),
        (f"{prefix}exception.class.name", type(error).__name__),
        (f"{prefix}exception.message", str(error)),
    ]


def _as_streams(record: Record, error: RecordError, _group: str) -> list[tuple[str, str]]:
    """Return a dead letter's headers under Kafka Streams' names (KIP-1034, ``ExceptionHandlerUtils``)."""
    prefix = "__streams.errors."
    return [
        (f"{prefix}exception", f"{type(error).__name__}: {error}"),
        (f"{prefix}message", str(error)),
        (f"{prefix}topic", record.topic),
        (f"{prefix}partition", str(record.partition)),
        (f"{prefix}offset", str(record.offset)),
    ]


_COPIES: Final = {"connect": _as_connect, "streams": _as_streams}


def smaller_dead_letter(
    key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]]
) -> DeadLetterEvent:
    """Return a dead letter cut to 256 bytes each of value, key and the record's headers, for a topic that refuses it.

    The ``sg_cut_*`` headers describe the record before this cut. Those of an earlier cut stay, so that they describe
    the original.
    """
    begin = max(number for number, (name, _) in enumerate(headers) if name == FIRST_HEADER)
    own, block = headers[:begin], dict(headers[begin:])
    if value is not None and len(value) > _SMALLER_BYTES_MAX:
        block.setdefault("sg_cut_from_bytes", b"%d" % len(value))
        block.setdefault("sg_cut_sha256", hashlib.sha256(value).hexdigest().encode())
        value = value[:_SMALLER_BYTES_MAX]
    if key is not None and len(key) > _SMALLER_BYTES_MAX:
        block.setdefault("sg_cut_key_from_bytes", b"%d" % len(key))
        key = key[:_SMALLER_BYTES_MAX]
    kept = _largest_dropped(own, _SMALLER_BYTES_MAX)
    if len(kept) < len(own):
        dropped = int(block.get("sg_cut_headers", b"0")) + len(own) - len(kept)
        block["sg_cut_headers"] = b"%d" % dropped
    return DeadLetterEvent(key, value, [*kept, *block.items()])


def _size_bytes(headers: Sequence[tuple[str, bytes]]) -> int:
    # 10 for the two lengths that the format adds to each.
    return sum(10 + len(name.encode()) + len(value or b"") for name, value in headers)


def _largest_dropped(
    headers: Sequence[tuple[str, bytes]], bytes_max: int
) -> list[tuple[str, bytes]]:
    """Return the headers in their order, without the largest if together they are too large."""
    sizes = [_size_bytes([header]) for header in headers]
    total = sum(sizes)
    dropped: set[int] = set()
    for number in sorted(range(len(sizes)), key=sizes.__getitem__, reverse=True):
        if total <= bytes_max:
            break
        total -= sizes[number]
        dropped.add(number)
    return [header for number, header in enumerate(headers) if number not in dropped]
