"""Confluent's wire format: where a record names its schema. Pure.

The source of the format is ``SchemaId`` in confluent-kafka's ``schema_registry/common/serde.py``. A frame begins with
a magic byte. After byte 0 follows the schema's id (4 bytes, big-endian). After byte 1 follows its GUID (16 bytes).
Protobuf adds the indexes of the message. The frame is in the header ``__value_schema_id``, or before the payload.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Final, TypeAlias

from stream_guard.core.errors import DecodeError, SchemaError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["HEADER", "SchemaKey", "find_frame", "key_name", "read_indexes"]

SchemaKey: TypeAlias = bytes
"""The bytes of a schema's id (4) or GUID (16)."""
HEADER: Final = "__value_schema_id"
_ID_END: Final = 5
_GUID_END: Final = 17
_INDEXES_MAX: Final = 100
_VARINT_BYTES_MAX: Final = 5


def find_frame(
    value: bytes, headers: Sequence[tuple[str, bytes]]
) -> tuple[SchemaKey, bytes, int] | None:
    """Return a record's schema, the bytes that hold the frame, and where the schema's bytes end in them.

    These bytes are the header, or the value itself. None: the record names no schema.

    Raises:
        SchemaError: the header is malformed.
    """
    frame = value
    for name, raw in headers:
        if name == HEADER:
            frame = raw or b""
            break
    else:
        name = ""
    magic = frame[:1]
    if magic == b"\x00" and len(frame) >= _ID_END:
        return frame[1:_ID_END], frame, _ID_END
    if magic == b"\x01" and len(frame) >= _GUID_END:
        return frame[1:_GUID_END], frame, _GUID_END
    if name:
        message = f"the header {HEADER} is malformed: it has neither a schema id nor a GUID"
        raise SchemaError(message)
    return None


def key_name(key: SchemaKey) -> str:
    """Return how people know a schema: ``schema id 7``, or ``schema GUID ...``."""
    if len(key) == _ID_END - 1:
        return f"schema id {int.from_bytes(key)}"
    return f"schema GUID {uuid.UUID(bytes=key)}"


def read_indexes(frame: bytes, start: int) -> tuple[tuple[int, ...], int]:
    """Return the indexes of a Protobuf message, and where they end.

    The first message of a file is ``(0,)``; ``(1, 0)`` is the first message within the second one.

    Raises:
        DecodeError: they are cut or malformed.
    """
    count, at = _varint(frame, start)
    if count == 0:
        return (0,), at
    if not 0 < count <= _INDEXES_MAX:
        raise DecodeError("the indexes of the Protobuf message are malformed")
    indexes = []
    for _ in range(count):
        index, at = _varint(frame, at)
        indexes.append(index)
    return tuple(indexes), at


def _varint(frame: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift, byte in enumerate(frame[at : at + _VARINT_BYTES_MAX]):
        value |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:  # noqa: PLR2004 - the last byte of a varint
            return (value >> 1) ^ -(value & 1), at + shift + 1
    raise DecodeError("the indexes of the Protobuf message are cut")
