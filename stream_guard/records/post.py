"""A record's bytes become a post, or the record's own error. Pure: no I/O, no clock.

What it must never do: let a record pass that a later stage would trip over, or put text of a
post into an error's message.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import orjson

from stream_guard.core.errors import (
    CloudEventError,
    EncodingError,
    FieldTypeError,
    JsonError,
    MissingFieldError,
    SettingsError,
    TombstoneError,
    TooDeepError,
    TooLargeError,
)
from stream_guard.core.json_pointer import JsonPointer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.settings import PostSettings

Headers: TypeAlias = "Sequence[tuple[str, bytes]]"

_STRUCTURED: Final = b"application/cloudevents+json"
_MISSING: Final = object()
_STRINGS: Final = frozenset((str, type(None)))
_OPTIONAL: Final = ("author", "tenant", "language", "title", "parent")


@dataclass(slots=True)
class Post:
    """What is judged; treated as immutable (not frozen, since freezing triples the cost of making one).

    Attributes:
        id: the platform's own id of the content.
        text: the text, as it came.
        sha256: hex digest of the text's UTF-8 bytes.
        text_bytes: length of text, title and parent in UTF-8 bytes.
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


_Found: TypeAlias = (
    "tuple[str, str, str | None, str | None, str | None, str | None, str | None, Any]"
)
"""Id, text, author, tenant, language, title, parent and time of creation, the last as it came."""


class PostParser:
    """Reads posts by the field names of one platform."""

    def __init__(self, settings: PostSettings) -> None:
        self._format = settings.format
        self._max_text_bytes = settings.max_text_bytes
        self._max_record_bytes = settings.max_record_bytes
        self._max_depth = settings.max_depth
        self._id = _Field("id", settings.id)
        self._text = _Field("text", settings.text)
        self._created_at = _Field("created_at", settings.created_at)
        self._author, self._tenant, self._language, self._title, self._parent = (
            _Field(name, getattr(settings, name)) for name in _OPTIONAL
        )
        every = (
            *(self._id, self._text, self._author, self._tenant, self._language),
            *(self._title, self._parent, self._created_at),
        )
        # Where every field is at the top, one sweep finds all of them.
        tops = [field.single for field in every if field.single is not None]
        self._tops = tops if len(tops) == len(every) else None

    def parse(self, value: bytes | None, headers: Headers) -> Post:
        """Return the post in a record's value.

        Raises:
            RecordError: one of its parse-stage kinds; its message holds no text of the post.
        """
        return self.parse_document(value, headers)[0]

    def parse_document(self, value: bytes | None, headers: Headers) -> tuple[Post, Any]:
        """Return the post in a record's value, and the JSON document (of a CloudEvent: its data) that it is in.

        Raises:
            RecordError: as :meth:`parse`.
        """
        if value is None:
            raise TombstoneError("the value is null")
        if len(value) > self._max_record_bytes:
            message = f"the value has {len(value)} bytes; post.max_record_bytes is {self._max_record_bytes}"
            raise TooLargeError(message)
        document = self._load(value)
        attributes: dict[str, Any] = {}
        if self._format != "json" and (headers or self._format == "cloudevents"):
            document, attributes = self._open_cloud_event(document, headers)
        return self._read(document, attributes), document

    def _load(self, value: bytes) -> Any:  # noqa: ANN401 - any JSON document
        try:
            document = orjson.loads(value)
        except orjson.JSONDecodeError as error:
            try:
                value.decode("utf-8")
            except UnicodeDecodeError as bad:
                message = f"byte {bad.start} is not UTF-8"
                raise EncodingError(message) from None
            if "limit exceeded" in str(error):  # of depth: 1,024 levels
                raise TooDeepError("nested deeper than the JSON parser allows") from None
            message = f"line {error.lineno}, column {error.colno}: not JSON"
            raise JsonError(message) from None
        # A document cannot be deeper than its number of brackets: most need no walk.
        if value.count(b"{") + value.count(b"[") > self._max_depth:
            _check_depth(document, self._max_depth)
        return document

    def _open_cloud_event(self, document: Any, headers: Headers) -> tuple[Any, dict[str, Any]]:  # noqa: ANN401
        """Return a CloudEvent's data and attributes (CloudEvents 1.0, Kafka protocol binding)."""
        attributes, content_type = _event_attributes(headers)
        if content_type.startswith(_STRUCTURED):
            if not isinstance(document, dict):
                raise CloudEventError("a structured CloudEvent is a JSON object")
            attributes, document = document, document.get("data", _MISSING)
        elif not attributes:
            if self._format == "cloudevents":
                raise CloudEventError(
                    "neither ce_* headers nor a content-type of application/cloudevents+json"
                )
            return document, attributes
        for name in ("specversion", "id", "source", "type"):
            if not isinstance(attributes.get(name), str) or not attributes[name]:
                message = f"the CloudEvent's attribute {name!r} is missing or empty"
                raise CloudEventError(message)
        if attributes["specversion"] != "1.0":
            raise CloudEventError("the CloudEvent's specversion is not 1.0")
        if document is _MISSING:
            raise CloudEventError("the CloudEvent has no data in JSON")
        return document, attributes

    def _read(self, document: Any, attributes: dict[str, Any]) -> Post:  # noqa: ANN401
        if not isinstance(document, dict):
            raise FieldTypeError("the document is not a JSON object")
        if self._tops is not None:
            found: Any = list(map(document.get, self._tops))
            if (
                found[0] is not None
                and found[1] is not None
                and _STRINGS.issuperset(map(type, found[:-1]))
            ):
                return self._make(found, attributes)
        post_id = _identifier(document, self._id)
        if post_id is None:
            raise MissingFieldError(f"no field at {self._id.text!r} (post.id)")
        text = _string(document, self._text)
        if text is None:
            raise MissingFieldError(f"no field at {self._text.text!r} (post.text)")
        title = _string(document, self._title)
        parent = _string(document, self._parent)
        return self._make(
            (
                post_id,
                text,
                _identifier(document, self._author),
                _identifier(document, self._tenant),
                _string(document, self._language),
                title,
                parent,
                self._created_at.find(document),
            ),
            attributes,
        )

    def _make(self, found: _Found, attributes: dict[str, Any]) -> Post:
        post_id, text, author, tenant, language, title, parent, created_at = found
        try:
            encoded = text.encode()
            text_bytes = len(encoded)
            if title is not None:
                text_bytes += len(title.encode())
            if parent is not None:
                text_bytes += len(parent.encode())
        except UnicodeEncodeError:
            raise EncodingError("a lone surrogate in the text") from None
        if text_bytes > self._max_text_bytes:
            message = (
                f"the text has {text_bytes} bytes; post.max_text_bytes is {self._max_text_bytes}"
            )
            raise TooLargeError(message)
        if created_at is None:
            created_at = attributes.get("time")
        return Post(
            post_id,
            text,
            hashlib.sha256(encoded).hexdigest(),
            text_bytes,
            author,
            tenant,
            language,
            title,
            parent,
            None if created_at is None else _time_ms(created_at, self._created_at.name),
        )


def _event_attributes(headers: Headers) -> tuple[dict[str, Any], bytes]:
    """Return the attributes in a record's ``ce_*`` headers, and its content type."""
    attributes: dict[str, Any] = {}
    content_type = b""
    for name, raw in headers:
        if name.startswith("ce_"):
            attributes[name[3:]] = raw.decode("utf-8", "replace") if raw else ""
        elif name.lower() == "content-type":
            content_type = raw or b""
    return attributes, content_type


class _Field(JsonPointer):
    """A field of the post and its place in the document."""

    __slots__ = ("name",)

    def __init__(self, name: str, pointer: str) -> None:
        try:
            super().__init__(pointer)
        except ValueError as error:
            message = f"post.{name}: {error}"
            raise SettingsError(message) from None
        self.name = name


def _string(document: dict[str, Any], field: _Field) -> str | None:
    value = field.find(document)
    if value is None or type(value) is str:
        return value
    message = (
        f"the field at {field.text!r} (post.{field.name}) is a {type(value).__name__}, not a string"
    )
    raise FieldTypeError(message)


def _identifier(document: dict[str, Any], field: _Field) -> str | None:
    """Return an id; platforms use numbers for them too, so a whole number is taken as its digits."""
    value = field.find(document)
    if value is None or type(value) is str:
        return value
    if type(value) is int:
        return str(value)
    message = (
        f"the field at {field.text!r} (post.{field.name}) is a {type(value).__name__}, not a string"
    )
    raise FieldTypeError(message)


def _check_depth(document: Any, max_depth: int) -> None:  # noqa: ANN401
    level = [document]
    for _ in range(max_depth + 1):
        level = [
            child
            for value in level
            if isinstance(value, dict | list)
            for child in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return
    message = f"nested deeper than post.max_depth, {max_depth}"
    raise TooDeepError(message)


# Unix seconds reach this value in the year 5138, milliseconds did in 1973: a number above it is in ms.
_SECONDS_MAX: Final = 100_000_000_000
_YEAR_1_MS: Final = -62_135_596_800_000
_YEAR_10000_MS: Final = 253_402_300_800_000


def _time_ms(value: Any, name: str) -> int:  # noqa: ANN401
    if type(value) in (int, float) and math.isfinite(value):
        ms = int(value if abs(value) >= _SECONDS_MAX else value * 1_000)
        # A number of any size is valid JSON; beyond 64 bits no verdict could carry it.
        if _YEAR_1_MS <= ms < _YEAR_10000_MS:
            return ms
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            pass
        else:
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=UTC)
            return (moment - _EPOCH) // timedelta(milliseconds=1)
    message = f"post.{name} is neither an RFC 3339 time nor a Unix time"
    raise FieldTypeError(message)


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
