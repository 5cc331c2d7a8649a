"""What decodes the bytes behind a frame. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_guard.core.errors import SchemaError
    from stream_guard.records.decoding.frame import SchemaKey

__all__ = ["Schema", "Schemas"]

Schemas: TypeAlias = "Mapping[SchemaKey, Schema | SchemaError]"
"""By id or GUID; an error says why a schema cannot be used."""


class Schema(Protocol):
    """A schema that was fetched and compiled."""

    @property
    def kind(self) -> str:
        """``avro``, ``protobuf`` or ``json_schema``."""

    def decode(self, value: bytes, frame: bytes, start: int, max_depth: int) -> tuple[Any, bool]:
        """Return a JSON-like document, and whether lone surrogates in it were replaced.

        Args:
            value: the record's value.
            frame: the bytes that name the schema: ``value`` itself, or a header.
            start: where the schema's id or GUID ends in ``frame``.
            max_depth: most levels of nesting (``post.max_depth``).

        Raises:
            RecordError: the bytes do not follow the schema.
        """
