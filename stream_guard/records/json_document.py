"""Parses the JSON of a record's value, replaces lone surrogates, and names the cause of a failure. Pure.

No message holds text of the value.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

import orjson

from stream_guard.core.errors import EncodingError, JsonError, TooDeepError
from stream_guard.records.field_values import is_inexact

__all__ = ["check_depth", "load_document", "load_exactly"]

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
# JSON has backslashes in strings only, so every escape is found from left to right. A pair of surrogates is one
# character; a lone one is half of a character, as JavaScript writes it for a text cut in the middle of an emoji.
_ESCAPE: Final = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(?P<lone>u[dD][89a-fA-F][0-9a-fA-F]{2})|[\s\S])"
)
_REPLACEMENT: Final = rb"\ufffd"
_STRING: Final = re.compile(rb'"(?:[^"\\]|\\[\s\S])*"')
_NOT_A_NUMBER: Final = re.compile(rb"(?<![\w])-?(?:NaN|Infinity)(?![\w])")
# What a value that is not JSON begins with, and what it is then.
_BEGINNINGS: Final = (
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
    (b"{\x00", "UTF-16"),
    (b"\x00{", "UTF-16"),
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"Obj\x01", "an Avro file"),
)
_FRAME_BYTES: Final = 5


def load_document(value: bytes, max_depth: int) -> tuple[Any, bool]:
    """Return a JSON document, and whether lone surrogates in it were replaced by U+FFFD.

    A byte order mark before the document is ignored.

    Args:
        value: JSON in UTF-8.
        max_depth: most levels of nesting (``post.max_depth``).

    Raises:
        EncodingError: the value is not UTF-8.
        JsonError: the value is not JSON; the message says where, and why where the cause is known.
        TooDeepError: the document is nested deeper.
    """
    repaired = False
    try:
        document = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        document, repaired = _load_again(value, error)
    # A document cannot be deeper than its number of brackets, so most need no walk.
    if value.count(b"{") + value.count(b"[") > max_depth:
        check_depth(document, max_depth)
    return document, repaired


def load_exactly(value: bytes, max_depth: int) -> tuple[Any, bool]:
    """Return what ``load_document`` does, with every digit of whole numbers; much slower.

    Numbers with a fraction or exponent that a float cannot hold exactly are text.

    Raises:
        RecordError: as ``load_document``.
    """
    document, repaired = load_document(value, max_depth)
    text = value.removeprefix(_BYTE_ORDER_MARK)
    try:
        return json.loads(_ESCAPE.sub(_without_lone, text), parse_float=_exact_float), repaired
    except (ValueError, RecursionError):  # too many digits, or too deep for this parser
        return document, repaired


def _exact_float(text: str) -> float | str:
    number = float(text)
    return text if is_inexact(number) else number


def _load_again(value: bytes, error: orjson.JSONDecodeError) -> tuple[Any, bool]:
    text = value.removeprefix(_BYTE_ORDER_MARK)
    whole = _ESCAPE.sub(_without_lone, text) if b"\\u" in text else text
    if whole != value:
        try:
            return orjson.loads(whole), whole != text
        except orjson.JSONDecodeError as second:
            error = second
    cause = _cause(value)
    try:
        value.decode("utf-8")
    except UnicodeDecodeError as bad:
        message = f"byte {bad.start} is not UTF-8{cause}"
        raise EncodingError(message) from None
    if "limit exceeded" in str(error):  # of depth: 1,024 levels
        raise TooDeepError("nested deeper than the JSON parser allows") from None
    message = f"line {error.lineno}, column {error.colno}: not JSON{cause}"
    raise JsonError(message) from None


def _without_lone(match: re.Match[bytes]) -> bytes:
    return match[0] if match["lone"] is None else _REPLACEMENT


def _cause(value: bytes) -> str:
    """Return what is known of why a value is not JSON, as the end of a message; empty where nothing is."""
    for beginning, name in _BEGINNINGS:
        if value.startswith(beginning):
            return f"; it looks like {name}: produce JSON in UTF-8"
    if value[:1] == b"\x00" and len(value) > _FRAME_BYTES:
        schema_id = int.from_bytes(value[1:_FRAME_BYTES])
        return (
            f"; it begins with a schema registry's frame (magic byte 0, schema id {schema_id}): "
            "set registry.url (STREAM_GUARD_REGISTRY__URL) and leave post.format at auto, or produce plain JSON"
        )
    if not value.strip():
        return "; it is empty"
    found = _NOT_A_NUMBER.search(_STRING.sub(b"", value))
    return f"; it contains {found[0].decode()}, which JSON does not allow" if found else ""


def check_depth(document: Any, max_depth: int) -> None:  # noqa: ANN401 - any JSON value
    """Return if a document has at most so many levels of nesting. Raises TooDeepError."""
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
