"""Decodes JSON behind a frame. The document is not validated: the producer's serializer did that."""

from __future__ import annotations

from typing import Any, Final

from stream_guard.records.json_document import load_document

__all__ = ["JsonSchema"]


class JsonSchema:
    """A JSON Schema of a registry."""

    kind: Final = "json_schema"

    def decode(self, value: bytes, frame: bytes, start: int, max_depth: int) -> tuple[Any, bool]:
        """Return the document, and whether lone surrogates were replaced; see :class:`.schema.Schema`."""
        return load_document(value[start:] if frame is value else value, max_depth)
