"""Reads the thread around a labelled post from the columns of its row. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from stream_guard.core.errors import SettingsError
from stream_guard.records.field_values import identifier, label
from stream_guard.records.thread import Thread, ThreadReader
from stream_guard.settings import PostSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["THREAD_COLUMNS", "Around", "read_around"]

THREAD_COLUMNS: Final = (
    *("title", "author", "parent", "parent_author", "thread"),
    *("thread_title", "quoted", "quoted_author"),
)
"""Columns that a set may have, besides text and label. ``thread`` is an object, as in a post's record."""
_SETTINGS: Final = PostSettings()
_READER: Final = ThreadReader(_SETTINGS.thread, _SETTINGS.max_field_bytes)


class Around(NamedTuple):
    """What a row says of a post, besides its text and label.

    Attributes:
        title: the post's own.
        author: the id of its author.
        thread: the thread around it.
    """

    title: str | None
    author: str | None
    thread: Thread


def read_around(values: Mapping[str, Any], picked: Mapping[str, str], place: str) -> Around:
    """Return what a row says.

    Args:
        values: of the row, by the file's own column names.
        picked: the file's column for each of :data:`THREAD_COLUMNS` that it has.
        place: file and line, for messages.

    Raises:
        SettingsError: a value cannot be used; names its column.
    """
    found = {name: values.get(picked[name]) for name in THREAD_COLUMNS if name in picked}
    # An empty cell of a table is no value.
    found = {name: value for name, value in found.items() if value not in (None, "")}
    thread = found.pop("thread", None)
    document = dict(thread) if isinstance(thread, dict) else {}
    for name in ("parent_author", "quoted", "quoted_author"):
        if name in found:
            document[name] = found[name]
    if "thread_title" in found:
        document["title"] = found["thread_title"]
    bad: list[str] = []
    title, parent = (_text(name, found, bad) for name in ("title", "parent"))
    read = _READER.read({"thread": document}, parent, bad)
    if bad:
        message = f"{place}: {', '.join(bad)} cannot be used; correct it, or empty it"
        raise SettingsError(message)
    return Around(title, identifier(found.get("author")), read)


def _text(name: str, found: Mapping[str, Any], bad: list[str]) -> str | None:
    value = found.get(name)
    text = None if value is None else label(value)
    if value is not None and text is None:
        bad.append(name)
    return text
