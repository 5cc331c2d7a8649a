"""Turns the bytes of a record into a document: by its schema where it names one, and as JSON otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stream_guard.core.errors import SchemaError
from stream_guard.records.decoding.frame import find_frame, key_name
from stream_guard.records.json_document import load_document
from stream_guard.settings.posts import REGISTRY_FORMATS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.records.decoding.schema import Schemas
    from stream_guard.settings import PostSettings

__all__ = ["FramedDecoder"]


class FramedDecoder:
    """Decodes values by the schemas of a registry.

    Args:
        settings: the section, for one topic; ``format`` and ``max_depth`` are used.
        schemas: by id or GUID; an error means that the registry does not know the schema, or that it cannot be used.
            Every schema that a record names must be here before the record is decoded.
    """

    def __init__(self, settings: PostSettings, schemas: Schemas) -> None:
        self._schemas = schemas
        self._max_depth = settings.max_depth
        self._required = settings.format if settings.format in REGISTRY_FORMATS else None

    def decode(self, value: bytes, headers: Sequence[tuple[str, bytes]]) -> tuple[Any, bool, bool]:
        """Return the document, whether lone surrogates in it were replaced, and whether it came by a schema.

        Raises:
            RecordError: the value cannot be decoded.
        """
        found = find_frame(value, headers)
        if found is None:
            if self._required is not None:
                message = (
                    f"the record names no schema, but post.format is {self._required}: produce it with a serializer "
                    "of the registry, or set post.format to auto"
                )
                raise SchemaError(message)
            return *load_document(value, self._max_depth), False
        key, frame, start = found
        schema = self._schemas[key]
        if isinstance(schema, SchemaError):
            raise SchemaError(str(schema))  # its own, so that no traceback grows
        if self._required is not None and schema.kind != self._required:
            message = (
                f"{key_name(key)} is of the kind {schema.kind}; post.format is {self._required}"
            )
            raise SchemaError(message)
        return *schema.decode(value, frame, start, self._max_depth), True
