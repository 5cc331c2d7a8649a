"""Settings of the thread around a post."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field

from stream_guard.settings.section import Section

_Pointer: TypeAlias = Annotated[str, Field(pattern=r"^(/.*)?$")]


class ThreadSettings(Section):
    """Where a record has the thread around its post, as JSON pointers, and how much of it the model sees.

    The parent's text is at ``post.parent``. Set a pointer to the empty string where records have no such field.
    """

    title: _Pointer = "/thread/title"
    """The title of the thread, if it is not the post's own (``post.title``)."""
    title_author: _Pointer = "/thread/title_author"
    """The id of the title's author."""
    parent_author: _Pointer = "/thread/parent_author"
    """The id of the parent's author."""
    earlier: _Pointer = "/thread/earlier"
    """The earlier posts: a list, newest last, without the parent."""
    earlier_text: _Pointer = "/text"
    """The text within an item of ``earlier``. An item may also be the text itself."""
    earlier_author: _Pointer = "/author"
    """The author's id within an item of ``earlier``."""
    quoted: _Pointer = "/thread/quoted"
    """The text that the post quotes."""
    quoted_author: _Pointer = "/thread/quoted_author"
    """The id of the quoted text's author."""
    earlier_posts_max: int = Field(20, ge=0, le=1_000)
    """Most earlier posts. The newest are kept, and the verdict says how many were dropped."""
    max_bytes: int = Field(32 << 10, ge=0)
    """Most bytes (UTF-8) of all texts of the thread together, in addition to ``post.max_text_bytes``. First the parent
    is kept, then the quoted text, the title, and the newest earlier posts."""
