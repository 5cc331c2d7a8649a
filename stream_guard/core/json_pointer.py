"""JSON pointers (RFC 6901): where a field is in a document. Pure.

The ``jsonpointer`` library parses; the lookup is our own, because the library's takes 5 to 8 times as long and every
record needs several.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from jsonpointer import JsonPointer as _Parsed
from jsonpointer import JsonPointerException, escape

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["FirstOf", "JsonPointer", "find", "pointer_to"]

_INDEX_DIGITS_MAX: Final = 9


class JsonPointer:
    """A parsed pointer.

    Args:
        text: the pointer; empty for the whole document.

    Raises:
        ValueError: it is not a pointer.

    Attributes:
        text: the pointer as it was written.
        parts: the names and indexes on the way, unescaped.
        single: the only part; None unless there is exactly one.
    """

    __slots__ = ("_steps", "parts", "single", "text")

    def __init__(self, text: str) -> None:
        try:
            parts = _Parsed(text).parts
        except JsonPointerException as error:
            message = f"{text!r} is not a JSON pointer ({error}); write for example /author/country"
            raise ValueError(message) from None
        self.text = text
        self.parts: tuple[str, ...] = tuple(parts)
        self.single = self.parts[0] if len(self.parts) == 1 else None
        self._steps = tuple((part, _index(part)) for part in self.parts)

    def find(self, document: Any) -> Any:  # noqa: ANN401 - any JSON value
        """Return the value in a document; None where it is missing or null."""
        value = document
        for name, index in self._steps:
            if isinstance(value, dict):
                value = value.get(name)
            elif isinstance(value, list) and 0 <= index < len(value):
                value = value[index]
            else:
                return None
        return value


def pointer_to(name: str) -> str:
    """Return the pointer to a field of a document, or to a column. A name that begins with a slash is a pointer."""
    return name if name.startswith("/") else f"/{escape(name)}"


class FirstOf:
    """Several places for one field; the first that has a value counts.

    Args:
        texts: the pointers, in this order.

    Raises:
        ValueError: one of them is not a pointer.

    Attributes:
        text: the pointers, for messages.
        single: always None; as in :class:`JsonPointer`.
    """

    __slots__ = ("_pointers", "text")
    single: Final = None

    def __init__(self, texts: Sequence[str]) -> None:
        self._pointers = tuple(map(JsonPointer, texts))
        self.text = " or ".join(texts)

    def find(self, document: Any) -> Any:  # noqa: ANN401 - any JSON value
        """Return the first value that is neither missing nor null nor an empty string.

        Without one, the result is an empty string if a place has one, and otherwise None.
        """
        found = None
        for pointer in self._pointers:
            value = pointer.find(document)
            if value is not None:
                if value != "":
                    return value
                found = value
        return found


def _index(part: str) -> int:
    """Return the index that a part is in an array; -1 where it is none (RFC 6901, section 4)."""
    if part.isascii() and part.isdecimal() and len(part) <= _INDEX_DIGITS_MAX:
        return int(part) if part == "0" or part[0] != "0" else -1
    return -1


_parsed = lru_cache(maxsize=1_024)(JsonPointer)


def find(document: Any, text: str) -> Any:  # noqa: ANN401 - any JSON value
    """Return the value at a pointer; None where it is missing or null. The last 1,024 pointers stay parsed.

    Raises:
        ValueError: it is not a pointer.
    """
    return _parsed(text).find(document)
