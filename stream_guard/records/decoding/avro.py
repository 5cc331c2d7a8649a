"""Decodes Avro into JSON-like documents. The only module that imports fastavro.

The schema is rewritten before it is compiled, so that fastavro itself makes JSON-like values: each type that JSON does
not have gets a logical type of ours, whose reader converts it. Types of times keep the integer that Avro stores.
"""

from __future__ import annotations

import datetime as dt
import io
import uuid
from typing import TYPE_CHECKING, Any, Final

import fastavro
from fastavro._read_py import schemaless_reader as careful_reader
from fastavro.read import LOGICAL_READERS

from stream_guard.core.errors import DecodeError, RecordError, SchemaError, TooDeepError
from stream_guard.records.decoding.values import bytes_text, decimal_text
from stream_guard.records.json_document import check_depth

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["AvroSchema"]

_EPOCH_DAY: Final = dt.date(1970, 1, 1).toordinal()
_PREFIX: Final = "stream-guard-"
_TYPES_MAX: Final = 10_000
"""Most types of a schema, its references included; compiling more would take seconds."""
# By the type of Avro and its logical type: the logical type of ours.
_LOGICAL: Final = {
    ("bytes", "decimal"): "decimal",
    ("fixed", "decimal"): "decimal",
    ("fixed", "uuid"): "uuid",
    ("int", "date"): "date",
}


def _read_bytes(value: bytes, *_: Any) -> str:  # noqa: ANN401 - the schemas
    return bytes_text(value)


def _read_decimal(value: bytes, writer_schema: Any, *_: Any) -> str | None:  # noqa: ANN401 - the schemas
    return decimal_text(value, writer_schema.get("scale") or 0)


def _read_uuid(value: bytes, *_: Any) -> str:  # noqa: ANN401 - the schemas
    return str(uuid.UUID(bytes=value)) if len(value) == 16 else bytes_text(value)  # noqa: PLR2004 - bytes of a UUID


def _read_date(value: int, *_: Any) -> str | None:  # noqa: ANN401 - the schemas
    try:
        return dt.date.fromordinal(_EPOCH_DAY + value).isoformat()
    except (ValueError, OverflowError):
        return None


# fastavro has one table for all schemas of a process; our names are in nobody's way.
LOGICAL_READERS.update(
    {
        f"bytes-{_PREFIX}bytes": _read_bytes,
        f"fixed-{_PREFIX}bytes": _read_bytes,
        f"bytes-{_PREFIX}decimal": _read_decimal,
        f"fixed-{_PREFIX}decimal": _read_decimal,
        f"fixed-{_PREFIX}uuid": _read_uuid,
        f"int-{_PREFIX}date": _read_date,
    }
)


class AvroSchema:
    """An Avro schema of a registry.

    Args:
        schema: the schema as JSON.
        references: the schemas that it refers to, each after those that it refers to itself.
        keep_bytes: whether bytes stay bytes, and do not become text.

    Raises:
        SchemaError: it is no Avro schema, or one that cannot be decoded safely.
    """

    kind: Final = "avro"

    def __init__(
        self,
        schema: Any,  # noqa: ANN401 - any JSON value
        references: Sequence[Any],
        *,
        keep_bytes: bool = False,
    ) -> None:
        named: dict[str, Any] = {}
        form = _bare if keep_bytes else _rewritten
        try:
            for each in references:
                fastavro.parse_schema(form(each), named_schemas=named)
            parsed = fastavro.parse_schema(form(schema), named_schemas=named)
        except SchemaError:
            raise
        except Exception as error:  # noqa: BLE001 - fastavro raises many kinds of errors for what is no schema
            message = f"not an Avro schema that can be used: {type(error).__name__}"
            raise SchemaError(message) from None
        shape = _Shape(named)
        depth = shape.depth(parsed, frozenset())
        self._schema = parsed
        self._depth = depth
        # fastavro's compiled reader overflows the stack of C on deep records of a recursive schema.
        self._reader = fastavro.schemaless_reader if depth is not None else careful_reader

    def decode(self, value: bytes, frame: bytes, start: int, max_depth: int) -> tuple[Any, bool]:
        """Return the document; see :class:`.schema.Schema`."""
        stream = io.BytesIO(value)
        if frame is value:
            stream.seek(start)
        try:
            document = self._reader(stream, self._schema, None)
            if self._depth is None or self._depth > max_depth:
                check_depth(document, max_depth)
        except RecordError:
            raise
        except RecursionError:
            raise TooDeepError("nested deeper than the Avro decoder allows") from None
        except Exception as error:  # noqa: BLE001 - bytes that do not follow the schema raise many kinds of errors
            message = f"the bytes do not follow the record's Avro schema: {type(error).__name__}"
            raise DecodeError(message) from None
        return document, False


def _rewritten(schema: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Return a schema whose types that JSON does not have carry logical types of ours, and no others."""
    if schema == "bytes":
        return {"type": "bytes", "logicalType": f"{_PREFIX}bytes"}
    if isinstance(schema, list):
        return [_rewritten(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    # Defaults serve a reader's schema, and aliases too; here the writer's own schema reads.
    made = {
        key: value
        for key, value in schema.items()
        if key not in ("logicalType", "default", "aliases", "doc")
    }
    kind = schema.get("type")
    if kind in ("bytes", "fixed", "int"):
        ours = _logical(kind, schema.get("logicalType"))
        return made if ours is None else {**made, "logicalType": _PREFIX + ours}
    for key in ("type", "items", "values"):
        if isinstance(made.get(key), dict | list) or made.get(key) == "bytes":
            made[key] = _rewritten(made[key])
    if isinstance(made.get("fields"), list):
        made["fields"] = [_field(each) for each in made["fields"]]
    return made


def _bare(schema: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Return a schema without logical types, defaults and aliases: each value is as Avro stores it."""
    if isinstance(schema, list):
        return [_bare(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    unused = ("logicalType", "default", "aliases", "doc")
    return {key: _bare(value) for key, value in schema.items() if key not in unused}


def _logical(kind: str, logical: Any) -> str | None:  # noqa: ANN401 - any JSON value
    """Return our logical type for a type; unknown logical types are ignored, as Avro's specification says."""
    ours = _LOGICAL.get((kind, logical)) if isinstance(logical, str) else None
    return "bytes" if ours is None and kind != "int" else ours


def _field(field: Any) -> Any:  # noqa: ANN401 - any JSON value
    if not isinstance(field, dict):
        return field
    made = {key: value for key, value in field.items() if key in ("name", "type")}
    if "type" in made:
        made["type"] = _rewritten(made["type"])
    # Some write a logical type beside the field's type instead of inside it; Avro ignores it there.
    return made


class _Shape:
    """Looks at a compiled schema: how deep its documents are, and whether a few bytes can become many values.

    Args:
        named: the named types, by full name.
    """

    def __init__(self, named: Mapping[str, Any]) -> None:
        self._named = named
        self._types = 0

    def depth(self, schema: Any, inside: frozenset[str]) -> int | None:  # noqa: ANN401 - any JSON value
        """Return the most levels of nesting of a document; None if the schema is recursive.

        Raises:
            SchemaError: an array has items without bytes, or there are too many types.
        """
        self._types += 1
        if self._types > _TYPES_MAX:
            message = f"the Avro schema has over {_TYPES_MAX:,} types"
            raise SchemaError(message)
        if isinstance(schema, str):
            if schema in inside:
                return None
            return self.depth(self._named[schema], inside) if schema in self._named else 0
        if isinstance(schema, list):
            return self._deepest(schema, inside)
        kind = schema["type"]
        if kind == "array":
            if self._is_empty(schema["items"], inside):
                raise SchemaError("the Avro schema has an array of items without bytes")
            inner = self.depth(schema["items"], inside)
        elif kind == "map":
            inner = self.depth(schema["values"], inside)
        elif kind in ("record", "error"):
            inside |= {schema["name"]}
            inner = self._deepest([field["type"] for field in schema["fields"]], inside)
        elif isinstance(kind, dict | list):
            return self.depth(kind, inside)
        else:
            return 0
        return None if inner is None else inner + 1

    def _deepest(self, schemas: Sequence[Any], inside: frozenset[str]) -> int | None:
        deepest = 0
        for each in schemas:
            depth = self.depth(each, inside)
            if depth is None:
                return None
            deepest = max(deepest, depth)
        return deepest

    def _is_empty(self, schema: Any, inside: frozenset[str]) -> bool:  # noqa: ANN401 - any JSON value
        """Return whether a value of this schema has no bytes: so a count could make any number of them."""
        if isinstance(schema, str):
            named = schema in self._named and schema not in inside
            return self._is_empty(self._named[schema], inside) if named else schema == "null"
        if isinstance(schema, list):
            return False
        kind = schema["type"]
        if kind in ("record", "error"):
            within = inside | {schema["name"]}
            return all(self._is_empty(field["type"], within) for field in schema["fields"])
        if isinstance(kind, dict):
            return self._is_empty(kind, inside)
        return bool(kind == "null" or (kind == "fixed" and schema["size"] == 0))
