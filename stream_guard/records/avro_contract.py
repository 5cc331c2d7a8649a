"""The Avro schemas of verdicts and dead letters, made from their JSON Schemas. Pure; needs no Avro library.

Words stay strings: an enum of Avro could not get a new word without failing older readers. A field that may be null or
missing has the default null, and a required array has the default ``[]``. So a minor version, which only adds optional
fields, is compatible in both directions. There are no ``doc`` texts, so that a better description is no new schema.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from stream_guard.records.contracts import writer_schema

__all__ = [
    "CONTRACTS",
    "DEAD_LETTER",
    "FORMAT_HEADER",
    "VERDICT",
    "AvroContract",
    "contract_of",
    "restored",
    "verdict_contract",
]

NAMESPACE: Final = "streamguard.v1"
_PLAIN: Final = {"string": "string", "integer": "long", "number": "double", "boolean": "boolean"}
_HEADER: Final = "sg_"
_NUMBERS: Final = frozenset(("^[0-9]+$", "^-?[0-9]+$", "^[1-9][0-9]*$"))
"""Patterns of headers that hold a number."""
FORMAT_HEADER: Final = "sg_format"
"""The header of a dead letter in Avro."""

Absent: TypeAlias = "dict[str, tuple[bool, Absent]]"
"""By field: whether a null stands for a missing field, and the same of the record or the records in it."""


@dataclass(frozen=True)
class AvroContract:
    """A contract in Avro.

    Attributes:
        schema: the schema, as registered.
        absent: which nulls stand for missing fields; see :func:`restored`.
    """

    schema: dict[str, Any]
    absent: Absent

    @property
    def full_name(self) -> str:
        """The name of the record with its namespace."""
        return f"{self.schema['namespace']}.{self.schema['name']}"


def restored(document: Any, absent: Absent) -> Any:  # noqa: ANN401 - any JSON value
    """Remove the nulls that stand for missing fields, in place, and return the document."""
    if isinstance(document, list):
        for each in document:
            restored(each, absent)
    elif isinstance(document, dict):
        for name, (optional, inner) in absent.items():
            value = document.get(name)
            if value is None:
                if optional:
                    document.pop(name, None)
            elif inner:
                restored(value, inner)
    return document


class _Converter:
    """Converts one JSON Schema."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._definitions = schema.get("$defs", {})

    def record(self, schema: dict[str, Any], name: str) -> tuple[dict[str, Any], Absent]:
        """Return the record of an object, and which of its nulls stand for missing fields."""
        fields: list[dict[str, Any]] = []
        absent: Absent = {}
        required = schema.get("required", ())
        for key, part in schema["properties"].items():
            words = "".join(word.capitalize() for word in key.split("_"))
            kind, nullable, inner = self._type(part, name + words)
            if nullable or key not in required:
                fields.append({"name": key, "type": ["null", kind], "default": None})
            elif isinstance(kind, dict) and kind["type"] == "array":
                fields.append({"name": key, "type": kind, "default": []})
            else:
                fields.append({"name": key, "type": kind})
            optional = key not in required and not nullable
            if optional or inner:
                absent[key] = (optional, inner)
        return {"type": "record", "name": name, "fields": fields}, absent

    def _type(self, part: dict[str, Any], name: str) -> tuple[Any, bool, Absent]:
        """Return a part's type, whether it may be null, and which nulls in it stand for missing fields."""
        if "$ref" in part:
            return self._type(self._definitions[part["$ref"].removeprefix("#/$defs/")], name)
        if "anyOf" in part:
            (other,) = (each for each in part["anyOf"] if each != {"type": "null"})
            kind, _, inner = self._type(other, name)
            return kind, True, inner
        if "const" in part or "enum" in part:
            values = part.get("enum", [part.get("const")])
            assert all(isinstance(each, str) for each in values if each is not None), name
            return "string", None in values, {}
        kinds = part["type"] if isinstance(part["type"], list) else [part["type"]]
        (kind,) = (each for each in kinds if each != "null")
        nullable = "null" in kinds
        if kind == "array":
            items, _, inner = self._type(part["items"], f"{name}Item")
            return {"type": "array", "items": items}, nullable, inner
        if kind == "object":
            record, inner = self.record(part, name)
            return record, nullable, inner
        return _PLAIN[kind], nullable, {}


def verdict_contract(schema: dict[str, Any]) -> AvroContract:
    """Return the Avro contract of a verdict's JSON Schema."""
    record, absent = _Converter(schema).record(schema, "Verdict")
    return AvroContract(_named(record, schema), absent)


def _dead_letter() -> AvroContract:
    """Return the schema of a dead letter: its headers without ``sg_``, then the value and headers of the record."""
    schema = writer_schema("dead-letter-1.0.json")
    fields: list[dict[str, Any]] = []
    for header, part in schema["properties"].items():
        if header == FORMAT_HEADER:
            continue
        kind = "long" if part.get("pattern") in _NUMBERS else "string"
        field: dict[str, Any] = {"name": header.removeprefix(_HEADER), "type": kind}
        if header not in schema["required"]:
            field |= {"type": ["null", kind], "default": None}
        fields.append(field)
    of_record = {
        "type": "record",
        "name": "DeadLetterHeader",
        "fields": [
            {"name": "name", "type": "string"},
            {"name": "value", "type": ["null", "bytes"], "default": None},
        ],
    }
    fields += [
        {"name": "value", "type": ["null", "bytes"], "default": None},
        {"name": "headers", "type": {"type": "array", "items": of_record}, "default": []},
    ]
    return AvroContract(
        _named({"type": "record", "name": "DeadLetter", "fields": fields}, schema), {}
    )


def _named(record: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "record",
        "name": record["name"],
        "namespace": NAMESPACE,
        "doc": f"The contract is {schema['$id']}.",
        "fields": record["fields"],
    }


VERDICT: Final = "verdict-1.1.avsc"
DEAD_LETTER: Final = "dead-letter-1.0.avsc"
CONTRACTS: Final = {
    VERDICT: lambda: verdict_contract(writer_schema("verdict-1.1.json")),
    DEAD_LETTER: _dead_letter,
}
"""By the name of the published file."""


@functools.cache
def contract_of(name: str) -> AvroContract:
    """Return a contract in Avro.

    Args:
        name: one of :data:`CONTRACTS`.
    """
    return CONTRACTS[name]()
