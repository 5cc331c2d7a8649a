"""Decides which records are posts, by the conditions in ``post.where``. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from stream_guard.core.errors import NotAPostError, SettingsError
from stream_guard.core.json_pointer import JsonPointer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["PostConditions"]

_HEADER: Final = "header:"
_ANY: Final = "*"
_SCALARS: Final = frozenset((str, int, float, bool, type(None)))


class PostConditions:
    """The conditions, all of which a post must meet.

    Args:
        where: from a JSON pointer, or ``header:NAME``, to the accepted values. Null accepts a missing field, and ``*``
            any value but null.

    Raises:
        SettingsError: a name is neither a JSON pointer nor a header.
    """

    def __init__(self, where: Mapping[str, Sequence[Any]]) -> None:
        self._headers = tuple(
            (name, name.removeprefix(_HEADER), _accepted(wanted))
            for name, wanted in where.items()
            if name.startswith(_HEADER)
        )
        self._fields = tuple(
            (name, _pointer(name), _accepted(wanted))
            for name, wanted in where.items()
            if not name.startswith(_HEADER)
        )

    def meets(self, document: Any, headers: Sequence[tuple[str, bytes]]) -> bool:  # noqa: ANN401
        """Return whether a record meets all conditions."""
        try:
            self.check(document, headers)
        except NotAPostError:
            return False
        return True

    def check(self, document: Any, headers: Sequence[tuple[str, bytes]]) -> None:  # noqa: ANN401
        """Return if a record is a post.

        Args:
            document: the JSON document; of a CloudEvent its data.
            headers: the record's headers.

        Raises:
            NotAPostError: a condition is not met; the error names it.
        """
        for name, pointer, accepted in self._fields:
            if not _accepts(accepted, pointer.find(document)):
                raise NotAPostError(name)
        for name, header, accepted in self._headers:
            raw = next((value for key, value in reversed(headers) if key == header), None)
            if not _accepts(accepted, None if raw is None else raw.decode("utf-8", "replace")):
                raise NotAPostError(name)


def _pointer(name: str) -> JsonPointer:
    try:
        return JsonPointer(name)
    except ValueError as error:
        message = f"post.where: {error}, or header:NAME"
        raise SettingsError(message) from None


def _accepted(wanted: Sequence[Any]) -> frozenset[tuple[bool, Any]]:
    # In Python true equals 1; in JSON it does not.
    return frozenset((type(value) is bool, value) for value in wanted)


def _accepts(accepted: frozenset[tuple[bool, Any]], value: Any) -> bool:  # noqa: ANN401
    if type(value) in _SCALARS and (type(value) is bool, value) in accepted:
        return True
    return value is not None and (False, _ANY) in accepted
