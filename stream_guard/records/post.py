"""Parses posts from the bytes of records. Pure: no I/O, no clock.

Only the id and the text can make a record a dead letter. Every other field that cannot be used is ignored and named in
``Post.nulled``. No error's message holds text of a post.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from stream_guard.core.errors import (
    DeletedPostError,
    EmptyTextError,
    EncodingError,
    FieldTypeError,
    JsonError,
    MissingFieldError,
    NotAPostError,
    TombstoneError,
    TooLargeError,
)
from stream_guard.core.json_pointer import FirstOf, JsonPointer
from stream_guard.core.kafka_types import OversizedValue
from stream_guard.records.cloud_event import open_cloud_event
from stream_guard.records.decoding.frame import HEADER
from stream_guard.records.decoding.framed import FramedDecoder
from stream_guard.records.field_values import identifier, is_inexact, label, time_ms
from stream_guard.records.json_document import load_document, load_exactly
from stream_guard.records.markup import is_blank, resolve
from stream_guard.records.post_conditions import PostConditions
from stream_guard.records.thread import NO_THREAD, ThreadEntry, ThreadReader

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stream_guard.records.decoding.schema import Schemas
    from stream_guard.records.markup import Markup, Resolved
    from stream_guard.settings import PostSettings

__all__ = ["Headers", "Post", "PostParser", "ThreadEntry"]

Headers: TypeAlias = "Sequence[tuple[str, bytes]]"
LoadJson: TypeAlias = "Callable[[bytes, int], tuple[Any, bool]]"

_FIELDS: Final = ("id", "text", "author", "tenant", "language", "title", "parent", "created_at")
_STRINGS: Final = frozenset((str, type(None)))
# What a verdict repeats of the optional fields; these have a limit.
_REPEATED: Final = ("author", "tenant", "language")


@dataclass(slots=True)
class Post:
    """A post to judge. Treat it as immutable (not frozen, because freezing triples the cost of making one).

    Attributes:
        id: the platform's id of the content.
        text: the text.
        sha256: hex digest of the text's UTF-8 bytes.
        text_bytes: length of text, title and context in UTF-8 bytes.
        author, tenant, language, title: from the record, or None.
        created_at_ms: when it was written, Unix time in ms, or None.
        repaired: whether the record had lone surrogates, which are U+FFFD here.
        nulled: names of the fields that the record has, but that cannot be used.
        context: the thread around it, oldest first. The parent is part of it.
        context_dropped: how many earlier posts of the thread were left out because of the limits.
        markup: the text without its markup; None if it has none. With ``markup.for_model`` the text is
            ``markup.whole``; ``sha256`` is always the original's.
        empty: whether it is safe because neither text nor title say anything.
    """

    id: str
    text: str
    sha256: str
    text_bytes: int
    author: str | None = None
    tenant: str | None = None
    language: str | None = None
    title: str | None = None
    created_at_ms: int | None = None
    repaired: bool = False
    nulled: tuple[str, ...] = ()
    context: tuple[ThreadEntry, ...] = ()
    context_dropped: int = 0
    markup: Resolved | None = None
    empty: bool = False


class _InexactError(Exception):
    """An id in the document may have lost digits, so the document has to be read exactly."""


class PostParser:
    """Parses the posts of one platform, by the ``post`` settings.

    Args:
        settings: the section.
        schemas: of a registry, by id; every schema that a record names must be here before the record is parsed. None:
            there is no registry.

    Attributes:
        max_key_bytes: of a record's key, as ``post.max_key_bytes`` says.
    """

    def __init__(self, settings: PostSettings, schemas: Schemas | None = None) -> None:
        self._topics = {
            topic: PostParser(settings.of_topic(topic), schemas) for topic in settings.topics
        }
        self.max_key_bytes = settings.max_key_bytes
        self._decoder = None
        if schemas is not None and settings.format != "json":  # plain JSON has no frame
            self._decoder = FramedDecoder(settings, schemas)
        self._format = settings.format
        self._max_text_bytes = settings.max_text_bytes
        self._max_field_bytes = settings.max_field_bytes
        self._max_record_bytes = settings.max_record_bytes
        self._max_depth = settings.max_depth
        self._markup = settings.markup
        self._is_plain = settings.markup == "plain"
        self._for_model = settings.markup_for_model
        self._empty_text = settings.empty_text
        self._where = PostConditions(settings.where) if settings.where else None
        self._deletes = PostConditions(settings.deletes) if settings.deletes else None
        self._deleted_id = _place(settings.deleted_id)
        self._tombstone_deletes = settings.tombstones == "delete"
        self._fields = tuple(_place(getattr(settings, name)) for name in _FIELDS)
        self._thread = ThreadReader(settings.thread, settings.max_field_bytes)
        # Where every field is at the top, one pass finds all of them.
        tops = [field.single for field in self._fields if field.single is not None]
        self._tops = tops if len(tops) == len(self._fields) else None

    def of_topic(self, topic: str) -> PostParser:
        """Return the parser for a topic's records: this one, unless ``post.topics`` names the topic."""
        return self._topics.get(topic, self)

    def parse(self, value: bytes | None, headers: Headers) -> Post:
        """Return the post in a record's value.

        Raises:
            NotAPostError: ``post.where`` excludes the record.
            RecordError: the record is at fault; one of the kinds of the parse stage.
        """
        return self._parse(value, headers, load_document)[0]

    def parse_document(self, value: bytes | None, headers: Headers) -> tuple[Post, Any]:
        """Return the post in a record's value, and its JSON document (of a CloudEvent: the data).

        Raises:
            NotAPostError: ``post.where`` excludes the record; DeletedPostError: it says that a post was deleted.
            RecordError: the record is at fault; one of the kinds of the parse stage.
        """
        return self._parse(value, headers, load_document)

    def _parse(
        self, value: bytes | None, headers: Headers, load_json: LoadJson
    ) -> tuple[Post, Any]:
        if not value:
            value = self._empty_value(value)
        if len(value) > self._max_record_bytes:
            message = f"the value has {len(value)} bytes; post.max_record_bytes is {self._max_record_bytes}"
            raise TooLargeError(message)
        if self._decoder is None:
            document, repaired = self._load(value, headers, load_json)
            text_bytes_max = len(value)  # no text is longer than the JSON that it is in
        else:
            document, repaired, by_schema = self._decoder.decode(value, headers)
            text_bytes_max = sys.maxsize if by_schema else len(value)
        attributes: dict[str, Any] | None = None
        if self._format != "json" and (headers or self._format == "cloudevents"):
            inner_repaired = False

            def load(data: bytes) -> Any:  # noqa: ANN401 - any JSON value
                nonlocal inner_repaired
                inner, inner_repaired = load_json(data, self._max_depth)
                return inner

            document, attributes = open_cloud_event(
                document, headers, load, required=self._format == "cloudevents"
            )
            repaired = repaired or inner_repaired
        if self._deletes is not None and self._deletes.meets(document, headers):
            raise DeletedPostError(self._find_deleted(document))
        if self._where is not None:
            self._where.check(document, headers)
        try:
            post = self._read(document, attributes, text_bytes_max)
        except _InexactError:
            return self._parse(value, headers, load_exactly)
        if repaired:
            post.repaired = True
        return post, document

    def _empty_value(self, value: bytes | None) -> bytes:
        """Return a value of no bytes, or raise the error of one that is null or was too long to keep."""
        if value is None:
            if self._tombstone_deletes:
                raise DeletedPostError(None)
            if self._where is not None:
                raise NotAPostError("tombstone")
            raise TombstoneError("the value is null")
        if isinstance(value, OversizedValue):
            size = "more" if value.size_bytes is None else f"{value.size_bytes}"
            message = (
                f"the record has {size} bytes when expanded; at most {value.limit_bytes} are read"
            )
            raise TooLargeError(message)
        return value

    def _find_deleted(self, document: Any) -> str | None:  # noqa: ANN401 - any JSON value
        """Return the id of a deleted post; None where there is none, or one over its limit."""
        found = identifier(self._deleted_id.find(document))
        return found if found and len(found.encode()) <= self._max_field_bytes else None

    def _load(self, value: bytes, headers: Headers, load_json: LoadJson) -> tuple[Any, bool]:
        try:
            return load_json(value, self._max_depth)
        except (JsonError, EncodingError) as error:
            if all(name != HEADER for name, _ in headers):
                raise
            message = (
                f"{error}; the header {HEADER} names the record's schema: set registry.url "
                "(STREAM_GUARD_REGISTRY__URL) and leave post.format at auto, or produce plain JSON"
            )
            raise type(error)(message) from None

    def _read(
        self,
        document: Any,  # noqa: ANN401 - any JSON value
        attributes: dict[str, Any] | None,
        text_bytes_max: int,
    ) -> Post:
        if not isinstance(document, dict):
            raise FieldTypeError("the document is not a JSON object")
        if self._tops is not None:
            found: list[Any] = list(map(document.get, self._tops))
        else:
            found = [field.find(document) for field in self._fields]
        nulled: list[str] = []
        if (
            found[0] is None
            or found[1] is None
            or text_bytes_max > self._max_field_bytes
            or not _STRINGS.issuperset(map(type, found[:-1]))
        ):
            if self._decoder is None and any(map(is_inexact, (found[0], *found[2:4]))):
                raise _InexactError
            self._convert(found, nulled)
        post_id, text, author, tenant, language, title, parent, created_at = found
        encoded = text.encode()
        text_bytes = len(encoded)
        if title is not None:
            text_bytes += len(title.encode())
        if text_bytes > self._max_text_bytes:
            message = (
                f"the text has {text_bytes} bytes; post.max_text_bytes is {self._max_text_bytes}"
            )
            raise TooLargeError(message)
        thread = NO_THREAD
        if parent is not None or not self._thread.is_not_in(document):
            thread = self._thread.read(document, parent, nulled)
        created_at_ms = None
        if created_at is not None or attributes:
            created_at_ms = _created_ms(created_at, attributes, nulled)
        post = Post(
            post_id,
            text,
            hashlib.sha256(encoded).hexdigest(),
            text_bytes + thread.size_bytes,
            author,
            tenant,
            language,
            title,
            created_at_ms,
            False,  # noqa: FBT003 - by position, which is faster
            tuple(nulled) if nulled else (),
            thread.entries,
            thread.dropped,
        )
        # A quick check that most plain texts pass.
        return post if self._is_plain and " " < text[:1] <= "~" else self.finish(post)

    def finish(self, post: Post) -> Post:
        """Resolve a post's markup, and see whether it is empty; for posts that were in no record.

        Raises:
            EmptyTextError: it is empty, and becomes a dead letter.
        """
        if not self._is_plain:
            post.markup = resolve(post.text, self._markup, for_model=self._for_model)
            if self._for_model:
                _replace_by_resolved(post, self._markup)
        text = post.text if post.markup is None else post.markup.whole
        if self._empty_text != "judge" and is_blank(text) and is_blank(post.title or ""):
            if self._empty_text == "dead_letter":
                raise EmptyTextError("neither the text nor the title says anything")
            post.empty = True
        return post

    def _convert(self, found: list[Any], nulled: list[str]) -> None:
        """Give every field but the last its type, in place, and add the names of those that cannot be used."""
        for name, field, value in zip(_FIELDS[:2], self._fields, found, strict=False):
            if value is None:
                message = f"no field at {field.text!r} (post.{name})"
                raise MissingFieldError(message)
        post_id, text = identifier(found[0]), found[1]
        for name, usable, value in (
            ("id", post_id is not None, found[0]),
            ("text", type(text) is str, text),
        ):
            if not usable:
                pointer = self._fields[_FIELDS.index(name)].text
                message = f"the field at {pointer!r} (post.{name}) is a {type(value).__name__}, not a string"
                raise FieldTypeError(message)
        assert post_id is not None
        id_bytes = len(post_id.encode())
        if id_bytes > self._max_field_bytes:
            message = (
                f"the field at {self._fields[0].text!r} (post.id) has {id_bytes} bytes; "
                f"post.max_field_bytes is {self._max_field_bytes}"
            )
            raise TooLargeError(message)
        found[0] = post_id
        for index, name in enumerate(_FIELDS[2:-1], 2):
            value = found[index]
            if value is None:
                continue
            read = identifier(value) if name in ("author", "tenant") else label(value)
            if (
                read is not None
                and name in _REPEATED
                and len(read.encode()) > self._max_field_bytes
            ):
                read = None
            if read is None:
                nulled.append(name)
            found[index] = read


def _replace_by_resolved(post: Post, markup: Markup) -> None:
    """Let the model read the text and the thread without their markup."""
    before = [post.text, *(entry.text for entry in post.context)]
    if post.markup is not None:
        post.text = post.markup.whole
    entries = []
    for entry in post.context:
        resolved = resolve(entry.text, markup)
        entries.append(entry if resolved is None else entry._replace(text=resolved.whole))
    post.context = tuple(entries)
    after = [post.text, *(entry.text for entry in post.context)]
    post.text_bytes += sum(len(text.encode()) for text in after)
    post.text_bytes -= sum(len(text.encode()) for text in before)


def _place(where: str | tuple[str, ...]) -> JsonPointer | FirstOf:
    return JsonPointer(where) if isinstance(where, str) else FirstOf(where)


def _created_ms(
    created_at: Any,  # noqa: ANN401 - any JSON value
    attributes: dict[str, Any] | None,
    nulled: list[str],
) -> int | None:
    """Return when the post was written: by its own field, or else by the event's ``time``."""
    found = [value for value in (created_at, (attributes or {}).get("time")) if value is not None]
    for value in found:
        ms = time_ms(value)
        if ms is not None:
            return ms
    if found:
        nulled.append("created_at")
    return None
