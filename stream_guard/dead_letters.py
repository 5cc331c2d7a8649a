"""Dead letters: the original bytes and headers, and in ``sg_*`` headers where, when, which stage and why. Pure.

What it must never do: change the original bytes without saying so, or put text of a post into a header.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from stream_guard.ports import Outgoing

if TYPE_CHECKING:
    from stream_guard.errors import RecordError
    from stream_guard.ports import Record


def build_dead_letter(
    record: Record,
    error: RecordError,
    *,
    topic: str,
    group: str,
    failed_ms: int,
    policy_id: str | None,
    bytes_max: int,
    context: object,
) -> Outgoing:
    """Return a record's dead letter.

    Args:
        record: the record that cannot be judged.
        error: why.
        topic: the dead-letter topic.
        group: the consumer group that gave up on it.
        failed_ms: when, Unix time in ms.
        policy_id: the policy under which it failed; None where it failed before any.
        bytes_max: a longer value is cut to this, with its whole length and sha256 in the headers; the source
            record still has the whole.
        context: handed back on acknowledgement.
    """
    value = record.value
    about: list[tuple[str, str]] = [
        ("sg_reason", error.reason),
        ("sg_error", type(error).__name__),
        ("sg_message", str(error)),
        ("sg_stage", error.stage),
        ("sg_topic", record.topic),
        ("sg_partition", str(record.partition)),
        ("sg_offset", str(record.offset)),
        ("sg_timestamp_ms", str(record.timestamp)),
        ("sg_group", group),
        ("sg_failed_ms", str(failed_ms)),
    ]
    if policy_id is not None:
        about.append(("sg_policy", policy_id))
    if value is not None and len(value) > bytes_max:
        about.append(("sg_cut_from_bytes", str(len(value))))
        about.append(("sg_cut_sha256", hashlib.sha256(value).hexdigest()))
        value = value[:bytes_max]
    headers = [
        *record.headers,
        *((name, text.encode("utf-8", "backslashreplace")) for name, text in about),
    ]
    return Outgoing(topic, record.key, value, headers, context)
