"""Verdicts and dead letters in Avro: the published schemas, how they evolve, and that nothing is lost on the way."""

# ruff: noqa: ANN401 - schemas and documents of any form

from __future__ import annotations

import copy
import io
import json
from pathlib import Path
from typing import Any, Final

import fastavro
import pytest
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType
from avro.schema import parse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stream_guard.core.errors import JsonError
from stream_guard.records.avro_contract import CONTRACTS, contract_of, verdict_contract
from stream_guard.records.avro_output import AvroOutput
from stream_guard.records.contracts import writer_schema
from stream_guard.records.dead_letter import (
    DeadLetter,
    marker,
    needs_schema,
    read_dead_letter,
    replay_headers,
)
from stream_guard.records.dead_letter_event import build_dead_letter
from stream_guard.records.decoding.avro import AvroSchema
from stream_guard.records.verdict_event import VerdictEvents, decode_verdict
from stream_guard.settings import KafkaSettings
from stream_guard.testing import MemoryRecord
from tests.verdicts import make_verdict

ROOT: Final = Path(__file__).resolve().parents[3]
ID: Final = (7).to_bytes(4)
VERDICT: Final = contract_of("verdict-1.1.avsc")
LETTER: Final = contract_of("dead-letter-1.0.avsc")
VERDICTS: Final = {ID: AvroSchema(VERDICT.schema, ())}
LETTERS: Final = {ID: AvroSchema(LETTER.schema, (), keep_bytes=True)}


def values(schema: dict[str, Any], definitions: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Return documents that follow a JSON Schema of ours, each optional field sometimes missing."""
    if "$ref" in schema:
        return values(definitions[schema["$ref"].removeprefix("#/$defs/")], definitions)
    if "anyOf" in schema:
        return st.one_of([values(each, definitions) for each in schema["anyOf"]])
    if "const" in schema or "enum" in schema:
        return st.sampled_from(schema.get("enum", [schema.get("const")]))
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    of = {
        "string": st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
        "integer": st.integers(-(1 << 63), (1 << 63) - 1),
        "number": st.floats(allow_nan=False),
        "boolean": st.booleans(),
        "null": st.none(),
    }
    found = []
    for kind in kinds:
        if kind == "object":
            required = schema["required"]
            fields = {n: values(each, definitions) for n, each in schema["properties"].items()}
            optional = {n: each for n, each in fields.items() if n not in required}
            always = {n: each for n, each in fields.items() if n in required}
            found.append(st.fixed_dictionaries(always, optional=optional))
        elif kind == "array":
            found.append(st.lists(values(schema["items"], definitions), max_size=3))
        else:
            found.append(of[kind])
    return st.one_of(found)


_SCHEMA: Final = writer_schema("verdict-1.1.json")


def filled(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Return a document with null for each missing field that may be null: Avro does not tell the two apart."""
    filled_in = dict(document)
    for name, part in schema["properties"].items():
        kinds = part.get("type", ())
        nullable = "null" in kinds or None in part.get("enum", ()) or "anyOf" in part
        if name not in filled_in and nullable:
            filled_in[name] = None
        elif part.get("type") == "object" and name in filled_in:
            filled_in[name] = filled(filled_in[name], part)
    return filled_in


# The documents are large, so they come slowly where the machine is busy.
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(values(_SCHEMA, _SCHEMA["$defs"]))
def test_a_verdict_comes_back_as_it_was(verdict: dict[str, Any]) -> None:
    value = AvroOutput(VERDICT, 7).encode(verdict)
    assert value[:5] == b"\x00" + ID
    assert decode_verdict(value, VERDICTS) == filled(verdict, _SCHEMA)


@pytest.mark.parametrize("labels", [(), ("ESCALATE",), ("string", "two"), ("a", "b", "c")])
def test_tuples_are_lists(labels: tuple[str, ...]) -> None:
    verdict = make_verdict()
    verdict["policy"] |= {"labels": labels, "rule_ids": labels}
    verdict["review_reasons"] = labels
    found = decode_verdict(AvroOutput(VERDICT, 7).encode(verdict), VERDICTS)
    assert found["policy"]["labels"] == found["policy"]["rule_ids"] == list(labels)
    assert found["review_reasons"] == list(labels)


def test_the_headers_of_a_verdict_name_its_form() -> None:
    verdict = make_verdict()
    value, headers = VerdictEvents(0).encode(verdict, "00-0-0-00", AvroOutput(VERDICT, 7))
    plain = VerdictEvents(0).encode(verdict, "00-0-0-00")
    assert dict(headers) == {**dict(plain[1]), "content-type": b"application/avro"}
    assert decode_verdict(value, VERDICTS) == decode_verdict(plain[0])


def test_a_verdict_that_is_too_large_is_cut_in_avro_as_well() -> None:
    verdict = make_verdict()
    verdict["policy"]["rationale"] = "r" * 1_000
    avro = AvroOutput(VERDICT, 7)
    value, headers = VerdictEvents(0).encode(verdict, "00-0-0-00", avro)
    key, smaller, same = avro.smaller_verdict(b"k", value, headers)
    assert (key, same) == (b"k", headers)
    assert smaller is not None
    found = decode_verdict(smaller, VERDICTS)
    assert found["policy"]["rationale"] is None
    assert found["provenance"]["degraded"] == ["too_large_for_topic"]
    assert found["id"] == verdict["id"]


HEADERS: Final = [
    ("h", b"\xff"),
    ("sg_reason", b"of the record"),
    ("__value_schema_id", b"\x00\x00\x00\x00\x63"),
]


def letter(value: bytes | None = b"\x00\x00\x00\x00\x63broken", **changes: Any) -> MemoryRecord:
    record = MemoryRecord("posts", 3, 41, 99, b"key", value, HEADERS)
    event = build_dead_letter(
        record,
        JsonError("line 1: not JSON"),
        kafka=KafkaSettings(**changes),
        failed_ms=5,
        policy_id=None,
        attempts=1,
    )
    made = AvroOutput(LETTER, 7).wrap(event)
    return MemoryRecord("dead", 0, 2, 5, made.key, made.value, made.headers)


def read(record: MemoryRecord) -> DeadLetter:
    found = read_dead_letter(record, LETTERS)
    assert found is not None
    return found


def test_a_dead_letter_in_avro_is_read_as_the_record_that_failed() -> None:
    record = letter()
    found = read(record)
    assert needs_schema(record)
    assert (found.key, found.value, list(found.headers)) == (
        b"key", b"\x00\x00\x00\x00\x63broken", HEADERS,
    )  # fmt: skip
    assert (found.reason, found.source_offset, found.cut, found.unread) == ("json", 41, False, None)
    # The value stands alone for readers that see nothing else, and no other schema's id is beside it.
    document, _ = LETTERS[ID].decode(record.value or b"", record.value or b"", 5, 8)
    assert (document["reason"], document["offset"], document["policy"]) == ("json", 41, None)
    assert "__value_schema_id" not in dict(record.headers)
    # What a replay sends is the record, and its marker has no value in another form.
    assert replay_headers(found)[:3] == HEADERS
    assert marker(found, 9)[1] is None


def test_a_null_value_and_a_cut_one_keep_their_form() -> None:
    assert read(letter(None)).value is None
    cut = read(letter(b"v" * 2_000, dead_letter_bytes_max=1_024))
    assert (len(cut.value or b""), cut.about["sg_cut_from_bytes"], cut.cut) == (1_024, "2000", True)


def test_a_dead_letter_that_is_too_large_is_cut_in_avro_as_well() -> None:
    record = letter(b"v" * 2_000)
    made = AvroOutput(LETTER, 7).smaller_dead_letter(record.key, record.value, record.headers)
    found = read(MemoryRecord("dead", 0, 2, 5, made.key, made.value, made.headers))
    assert len(found.value or b"") == 256
    assert (found.about["sg_cut_from_bytes"], found.reason) == ("2000", "json")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "without a schema id"),
        (b"\x00\x00\x00\x00\x08abc", "set registry.url"),
        (b"\x00" + ID + b"\xff", "do not follow"),
    ],
)
def test_a_dead_letter_that_cannot_be_read_says_why(value: bytes | None, reason: str) -> None:
    record = letter()
    found = read(MemoryRecord("dead", 0, 2, 5, record.key, value, record.headers))
    assert reason in (found.unread or "")
    assert (found.value, found.cut, found.reason) == (None, True, "json")


@pytest.mark.parametrize("name", CONTRACTS)
def test_the_published_schemas_are_those_that_are_registered(name: str) -> None:
    text = (ROOT / "docs/contracts" / name).read_text("utf-8")
    assert json.loads(text) == contract_of(name).schema


def test_a_field_that_a_minor_version_adds_is_compatible_in_both_directions() -> None:
    newer = copy.deepcopy(_SCHEMA)
    part = newer["properties"]["provenance"]
    for added in (
        {"type": "string"},
        {"type": ["integer", "null"]},
        {"type": "array", "items": {"type": "string"}},
        {"type": "object", "required": ["x"], "properties": {"x": {"type": "number"}}},
    ):
        part["properties"][f"added_{len(part['properties'])}"] = added
    made = verdict_contract(newer).schema
    old, new = (parse(json.dumps(each)) for each in (VERDICT.schema, made))
    for reader, writer in ((old, new), (new, old)):
        found = ReaderWriterCompatibilityChecker().get_compatibility(reader=reader, writer=writer)
        assert found.compatibility is SchemaCompatibilityType.compatible
    # And the bytes of the older version are read by the newer one.
    value = AvroOutput(VERDICT, 7).encode(make_verdict())
    read_anew = fastavro.schemaless_reader(io.BytesIO(value[5:]), VERDICT.schema, made)
    assert isinstance(read_anew, dict)
    assert read_anew["id"] == make_verdict()["id"]
