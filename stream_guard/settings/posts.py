"""Settings of posts and of the folder of policies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BeforeValidator, Field, model_validator

from stream_guard.core.json_pointer import JsonPointer
from stream_guard.settings.section import Section
from stream_guard.settings.threads import ThreadSettings

REGISTRY_FORMATS: Final = ("avro", "protobuf", "json_schema")
"""Values of ``post.format`` that need a schema registry."""


def _listed(value: Any) -> Any:  # noqa: ANN401 - whatever the file or environment holds
    return value if isinstance(value, list | tuple) else (value,)


def _pointers(value: Any) -> Any:  # noqa: ANN401 - whatever the file or environment holds
    texts = _listed(value)
    if not texts:
        raise ValueError("the list is empty; name at least one place")
    for text in texts:
        if not isinstance(text, str):
            raise ValueError("is neither a JSON pointer nor a list of them")  # noqa: TRY004 - pydantic reports ValueError alone
        JsonPointer(text)
    return value


_Pointer = Annotated[str | tuple[str, ...], BeforeValidator(_pointers)]
_Place = Annotated[str, Field(pattern=r"^(/|header:).+$")]
_Values: TypeAlias = Annotated[
    tuple[str | int | float | bool | None, ...], BeforeValidator(_listed), Field(min_length=1)
]


class TopicPostSettings(Section):
    """What may differ between topics: the settings of ``post`` except ``topics``."""

    format: Literal["auto", "json", "cloudevents", "avro", "protobuf", "json_schema"] = "auto"
    """``auto`` reads a CloudEvent if the headers say so, and plain JSON otherwise; ``cloudevents`` requires one. With
    ``registry.url``, both read a record with a schema id by its schema. ``avro``, ``protobuf`` and ``json_schema``
    require a schema of that kind."""
    id: _Pointer = "/id"
    """The post's id. Every record needs it; a number becomes a string."""
    text: _Pointer = "/text"
    """The text. Every record needs it."""
    author: _Pointer = "/author"
    """The author's id."""
    tenant: _Pointer = "/tenant"
    """The tenant."""
    language: _Pointer = "/language"
    """The language (BCP 47)."""
    created_at: _Pointer = "/created_at"
    """Where the time of writing is: RFC 3339, or Unix time in s or ms."""
    title: _Pointer = "/title"
    """The post's own title, judged with the text."""
    parent: _Pointer = "/parent"
    """The text that the post answers: context, not judged."""
    thread: ThreadSettings = ThreadSettings()
    """The text that the post answers."""
    markup: Literal["plain", "html", "markdown"] = "plain"
    """How texts are written. Rules match the text without tags, entities and marks. They match targets of links and
    hidden texts apart from it."""
    markup_for_model: bool = False
    """Whether the classifier and the model read that text as well, links and hidden texts named under it; if not, they
    read the original."""
    empty_text: Literal["safe", "dead_letter", "judge"] = "safe"
    """What becomes of a post whose text and title are empty, also once markup is resolved: ``safe`` without asking the
    model, a dead letter, or judged like any other."""
    where: dict[_Place, _Values] = Field(default_factory=dict)
    """Which records are posts: from a JSON pointer or ``header:NAME`` to the accepted values. A record must meet all;
    others, and null values, are skipped and counted. ``*`` accepts any value, null a missing one. Empty: all records.
    """
    deletes: dict[_Place, _Values] = Field(default_factory=dict)
    """Which records say that a post was deleted at its source, as in ``where``; for Debezium ``{"/op" = "d"}``. A
    retraction of the post's verdicts is published. Empty: none."""
    deleted_id: _Pointer = "/id"
    """The deleted post's id, in a record that meets ``deletes``; for Debezium ``/before/id``. Without it, the record's
    key says which post it was."""
    tombstones: Literal["dead_letter", "delete"] = "dead_letter"
    """What a null value means: ``delete`` retracts the verdicts of the record's key. With ``dead_letter`` it becomes a
    dead letter, or is skipped where ``where`` is set."""
    max_text_bytes: int = Field(64 << 10, ge=1)
    """Most bytes (UTF-8) of text and title together; a larger post becomes a dead letter."""
    max_field_bytes: int = Field(4 << 10, ge=1)
    """Most bytes (UTF-8) of the id, author, tenant and language, which verdicts repeat. A larger id becomes a dead
    letter; another larger field is ignored."""
    max_record_bytes: int = Field(1 << 20, ge=1)
    """Most bytes of a record's value; a larger record becomes a dead letter."""
    max_key_bytes: int = Field(4 << 10, ge=1)
    """Most bytes of a record's key, which its verdicts repeat; a larger key makes a dead letter."""
    max_depth: int = Field(64, ge=1, le=512)
    """Most levels of nesting; a deeper document becomes a dead letter."""


class PostSettings(TopicPostSettings):
    """Where a record has the fields of a post, and their limits.

    A field's place is a JSON pointer (RFC 6901), or a list of them. The first place with a value counts.
    """

    topics: dict[str, TopicPostSettings] = Field(default_factory=dict)
    """Settings that differ for single topics: from the topic's name to any of the settings here. Those that are not
    set for the topic keep their common value."""

    def of_topic(self, topic: str) -> PostSettings:
        """Return the settings for the records of a topic."""
        own = self.topics.get(topic)
        if own is None:
            return self
        changes = {name: getattr(own, name) for name in own.model_fields_set}
        if "thread" in changes:
            thread = {name: getattr(own.thread, name) for name in own.thread.model_fields_set}
            changes["thread"] = self.thread.model_copy(update=thread)
        return self.model_copy(update={"topics": {}} | changes)


class PoliciesSettings(Section):
    """The policies and their archive."""

    path: Path = Path("policies")
    """The folder with ``<slug>/policy.md`` and ``routes.yaml``."""
    reload: bool = True
    """Whether edits take effect while the service runs; if not, at the next start."""
    archive: Literal["topic", "folder", "off"] = "topic"
    """Where each version is archived before it takes effect, so that its verdicts can be explained later: ``topic``
    uses ``kafka.archive_topic``, ``folder`` uses ``archive_path``."""
    archive_path: Path | None = None
    """The folder of the archive, for ``folder``; use a persistent volume."""

    @model_validator(mode="after")
    def _archive_has_a_place(self) -> PoliciesSettings:
        if self.archive == "folder" and self.archive_path is None:
            raise ValueError('archive_path is required with archive = "folder"')
        return self
