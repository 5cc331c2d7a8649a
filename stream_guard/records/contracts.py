"""The published JSON Schemas in two forms: strict for writers, open for readers. Pure.

The packaged schemas say exactly what this version writes; tests hold every verdict to them. A reader must accept later
minor versions, which may add fields. :func:`reader_schema` derives the form that is published for readers.
"""

from __future__ import annotations

import copy
from importlib import resources
from typing import Any, Final

import orjson

__all__ = ["reader_schema", "schema_names", "writer_schema"]

_FOLDER: Final = resources.files("stream_guard.records") / "schemas"
_URN: Final = "urn:stream-guard:schema:"


def schema_names() -> list[str]:
    """Return the file names of all published schemas, such as ``verdict-1.1.json``."""
    return sorted(file.name for file in _FOLDER.iterdir() if file.name.endswith(".json"))


def writer_schema(name: str) -> dict[str, Any]:
    """Return a schema as this version writes by it: closed, with its exact version.

    Args:
        name: one of :func:`schema_names`.
    """
    schema: dict[str, Any] = orjson.loads((_FOLDER / name).read_bytes())
    return schema


def reader_schema(name: str) -> dict[str, Any]:
    """Return a schema that also accepts every later minor version.

    It allows fields that it does not name, takes any version ``1.x``, and refers to no other file or URN: schemas that
    it needs are copied into its ``$defs``, so that code generators can read it alone.

    Args:
        name: one of :func:`schema_names`.
    """
    schema = writer_schema(name)
    if name.startswith("dsa-"):
        return schema  # lines of a file in another authority's format; it has no minor versions of ours
    opened: dict[str, Any] = _open(_bundle(schema))
    return opened


def _bundle(schema: dict[str, Any]) -> dict[str, Any]:
    """Copy what ``$ref`` names by URN into ``$defs``."""
    bundled = copy.deepcopy(schema)
    definitions: dict[str, Any] = bundled.get("$defs", {})
    for part in _parts(bundled):
        urn = str(part.get("$ref", ""))
        if not urn.startswith(_URN):
            continue
        kind, _, version = urn.removeprefix(_URN).partition(":")
        other = _bundle(writer_schema(f"{kind}-{version}.json"))
        definitions |= other.pop("$defs", {})
        definitions[kind] = {k: v for k, v in other.items() if k not in ("$schema", "$id")}
        part["$ref"] = f"#/$defs/{kind}"
    if definitions:
        bundled["$defs"] = definitions
    return bundled


def _open(part: Any, key: str = "") -> Any:  # noqa: ANN401 - any part of a schema
    """Take away what would refuse a later minor version, and name the type of each constant."""
    if isinstance(part, list):
        return [_open(each) for each in part]
    if not isinstance(part, dict):
        return part
    found = {name: _open(value, name) for name, value in part.items()}
    if found.get("additionalProperties") is False:
        del found["additionalProperties"]
    fixed = found.get("const")
    if isinstance(fixed, str):
        found = {"type": "string", **found}
        if key in ("schema_version", "dataschema", "ce_dataschema"):
            del found["const"]
            stem = fixed.rpartition(".")[0]
            found["pattern"] = f"^{stem}\\."
    elif "enum" in found and all(isinstance(each, str) for each in found["enum"]):
        found = {"type": "string", **found}
    return found


def _parts(part: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - any part of a schema
    if isinstance(part, list):
        return [found for each in part for found in _parts(each)]
    if not isinstance(part, dict):
        return []
    return [part, *(found for each in part.values() for found in _parts(each))]
