"""A record's bytes become a post, or the record's own error. Pure: no I/O, no clock.

What it must never do: let a record pass that a later stage would trip over, or put text of a
post into an error's message.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import orjson

from stream_guard.errors import (
    CloudEventError,
    EncodingError,
    FieldTypeError,
    JsonError,
    MissingFieldError,
    TombstoneError,
    TooDeepError,
    TooLargeError,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from stream_guard.settings import PostSettings

Headers: TypeAlias = "Sequence[tuple[str, bytes]]"

_STRUCTURED: Final = b"application/cloudevents+json"
_MISSING: Final = object()
_OPTIONAL: Final = ("author", "tenant", "language", "title", "parent")


@dataclass(slots=True, frozen=True)
class Post:
    """What is judged.

    Attributes:
        id: the platform's own id of the content.
        text: the text, as it came.
        sha256: hex digest of the text's UTF-8 bytes.
        text_bytes: length of the text in UTF-8 bytes.
        author, tenant, language, title, parent: as the platform gave them, or None.
        created_at_ms: when it was written, Unix time in ms, or None.
    """

    id: str
    text: str
    sha256: str
    text_bytes: int
    author: str | None = None
    tenant: str | None = None
    language: str | None = None
    title: str | None = None
    parent: str | None = None
    created_at_ms: int | None = None
