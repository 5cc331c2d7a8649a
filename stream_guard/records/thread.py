"""Reads the thread around a post from a record's document. Pure: no I/O, no clock.

Nothing in a thread can make a record a dead letter. What cannot be used is dropped and named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from stream_guard.core.errors import SettingsError
from stream_guard.core.json_pointer import JsonPointer
from stream_guard.records.field_values import identifier, label

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from stream_guard.core.vocabulary import ThreadKind
    from stream_guard.settings import ThreadSettings

__all__ = [
    "NO_THREAD",
    "SAME_AUTHOR",
    "UNKNOWN_AUTHOR",
    "Thread",
    "ThreadEntry",
    "ThreadReader",
    "speakers",
]

UNKNOWN_AUTHOR: Final = 0
SAME_AUTHOR: Final = 1
_SINGLE: Final = ("title", "title_author", "parent_author", "earlier", "quoted", "quoted_author")


class ThreadEntry(NamedTuple):
    """One text of the thread around a post.

    Attributes:
        kind: what it is to the post.
        text: its text.
        author: the platform's id of its author, or None where that is unknown.
    """

    kind: ThreadKind
    text: str
    author: str | None = None


class Thread(NamedTuple):
    """The thread around one post.

    Attributes:
        entries: title, earlier posts (oldest first), parent, quoted text.
        size_bytes: of their texts, in UTF-8.
        dropped: how many earlier posts were left out because of the limits.
    """

    entries: tuple[ThreadEntry, ...] = ()
    size_bytes: int = 0
    dropped: int = 0


NO_THREAD: Final = Thread()


def speakers(entries: Sequence[ThreadEntry], author: str | None) -> list[int]:
    """Return who wrote each entry, as the prompt says it.

    Args:
        entries: of a thread.
        author: of the post.

    Returns:
        ``SAME_AUTHOR``, ``UNKNOWN_AUTHOR``, or a number from 2 for each other author, in the order of appearance.
    """
    numbers: dict[str, int] = {}
    found = []
    for entry in entries:
        if entry.author is None:
            found.append(UNKNOWN_AUTHOR)
        elif entry.author == author:
            found.append(SAME_AUTHOR)
        else:
            found.append(numbers.setdefault(entry.author, len(numbers) + 2))
    return found


class ThreadReader:
    """Reads threads as the settings say.

    Args:
        settings: of threads.
        max_field_bytes: the longest id of an author, in bytes of UTF-8.

    Attributes:
        is_not_in: whether a document, by its keys, has no thread.

    Raises:
        SettingsError: a setting is not a JSON pointer; the message names it.
    """

    def __init__(self, settings: ThreadSettings, max_field_bytes: int) -> None:
        self._posts_max = settings.earlier_posts_max
        self._max_bytes = settings.max_bytes
        self._max_field_bytes = max_field_bytes
        self._places = {
            name: _pointer(name, place) for name in _SINGLE if (place := getattr(settings, name))
        }
        self._item_text = _pointer("earlier_text", settings.earlier_text)
        self._item_author = _pointer("earlier_author", settings.earlier_author)
        # Most records have no thread: their keys say so. A function of C, since every record asks it.
        self.is_not_in: Callable[[Iterable[str]], bool] = frozenset(
            place.parts[0] for place in self._places.values()
        ).isdisjoint

    def read(self, document: dict[str, Any], parent: str | None, nulled: list[str]) -> Thread:
        """Return a document's thread.

        Args:
            document: of the record.
            parent: the text that the post answers, or None.
            nulled: the names of fields that cannot be used are added to it.
        """
        left = self._max_bytes
        kept: dict[str, ThreadEntry] = {}
        for kind in ("parent", "quoted", "title"):
            name = "parent" if kind == "parent" else f"thread.{kind}"
            text = parent if kind == "parent" else self._text(document, kind, nulled)
            if not text:
                continue
            size = len(text.encode())
            if size > left:
                nulled.append(name)
                continue
            left -= size
            author = self._author(document, f"{kind}_author", nulled)
            kept[kind] = ThreadEntry(kind, text, author)
        earlier, left, dropped = self._earlier(document, left, nulled)
        title, answered, quoted = (
            (kept[kind],) if kind in kept else () for kind in ("title", "parent", "quoted")
        )
        entries = (*title, *earlier, *answered, *quoted)
        return Thread(entries, self._max_bytes - left, dropped)

    def _find(self, document: dict[str, Any], name: str) -> Any:  # noqa: ANN401 - any JSON value
        place = self._places.get(name)
        return None if place is None else place.find(document)

    def _text(self, document: dict[str, Any], name: str, nulled: list[str]) -> str | None:
        value = self._find(document, name)
        text = None if value is None else label(value)
        if value is not None and text is None:
            nulled.append(f"thread.{name}")
        return text

    def _author(self, document: dict[str, Any], name: str, nulled: list[str]) -> str | None:
        value = self._find(document, name)
        author = self._id(value)
        # An empty id names nobody.
        if author is None and value not in (None, ""):
            nulled.append(f"thread.{name}")
        return author

    def _id(self, value: Any) -> str | None:  # noqa: ANN401 - any JSON value
        author = identifier(value)
        return author if author and len(author.encode()) <= self._max_field_bytes else None

    def _earlier(
        self, document: dict[str, Any], left: int, nulled: list[str]
    ) -> tuple[list[ThreadEntry], int, int]:
        """Return the newest earlier posts, oldest first, the bytes that are left, and how many were dropped."""
        items = self._find(document, "earlier")
        if items is None:
            return [], left, 0
        if not isinstance(items, list):
            nulled.append("thread.earlier")
            return [], left, 0
        kept: list[ThreadEntry] = []
        odd = False
        at = len(items)
        while at and len(kept) < self._posts_max:
            item = items[at - 1]
            text = item if type(item) is str else label(self._item_text.find(item))
            if text is None:
                odd = True
                at -= 1
                continue
            size = len(text.encode())
            if size > left:
                break
            left -= size
            at -= 1
            if text:
                kept.append(ThreadEntry("earlier", text, self._id(self._item_author.find(item))))
        if odd:
            nulled.append("thread.earlier")
        return kept[::-1], left, at


def _pointer(name: str, text: str) -> JsonPointer:
    try:
        return JsonPointer(text)
    except ValueError as error:
        message = f"post.thread.{name}: {error}"
        raise SettingsError(message) from None
