"""Posts, and the policies that they are judged by."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from stream_guard.settings.section import Section

_Pointer = Annotated[str, Field(pattern=r"^(/.*)?$")]


class PostSettings(Section):
    """How a record's JSON becomes a post; fields are JSON pointers (RFC 6901)."""

    format: Literal["auto", "json", "cloudevents"] = "auto"
    """``auto`` reads CloudEvents where the headers say so, plain JSON elsewhere; ``cloudevents`` insists."""
    id: _Pointer = "/id"
    """Where the post's id is; required in every record."""
    text: _Pointer = "/text"
    """Where the text is; required in every record."""
    author: _Pointer = "/author"
    """Where the author's id is."""
    tenant: _Pointer = "/tenant"
    """Where the tenant is."""
    language: _Pointer = "/language"
    """Where the language (BCP 47) is."""
    created_at: _Pointer = "/created_at"
    """Where the time of writing is: RFC 3339, or Unix time in s or ms."""
    title: _Pointer = "/title"
    """Where the title is."""
    parent: _Pointer = "/parent"
    """Where the text that the post answers is."""
    max_text_bytes: int = Field(64 << 10, ge=1)
    """A longer text (UTF-8, with title and parent) is a dead letter."""
    max_record_bytes: int = Field(1 << 20, ge=1)
    """A larger value is a dead letter."""
    max_key_bytes: int = Field(4 << 10, ge=1)
    """A longer record key is a dead letter: every verdict carries its record's key."""
    max_depth: int = Field(64, ge=1, le=512)
    """A document nested deeper is a dead letter."""


class PoliciesSettings(Section):
    """Where the policies are."""

    path: Path = Path("policies")
    """A folder with ``<slug>/policy.md`` and ``routes.yaml``."""
    reload: bool = True
    """Whether edits of the folder go live while posts flow; without it, at the next start."""
    archive: Literal["topic", "folder", "off"] = "topic"
    """Where each version is kept before it goes live, so that its verdicts can be explained later: ``topic``, in
    ``kafka.archive_topic``; ``folder``, in ``archive_path``."""
    archive_path: Path | None = None
    """The archive's folder, for ``folder``; on a volume that outlives the process."""

    @model_validator(mode="after")
    def _archive_has_a_place(self) -> PoliciesSettings:
        if self.archive == "folder" and self.archive_path is None:
            raise ValueError('archive_path is required with archive = "folder"')
        return self
