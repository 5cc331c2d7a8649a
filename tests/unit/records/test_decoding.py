"""Bytes behind a frame: hostile ones are refused with an error of the record, and never end the process."""

# ruff: noqa: ANN401 - schemas and documents of any form

from __future__ import annotations

import contextlib
import io
from typing import Any, Final, Literal

import fastavro
import pytest
from google.protobuf import descriptor_pb2
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from stream_guard.core.errors import DecodeError, RecordError, SchemaError, TooDeepError
from stream_guard.records.decoding.avro import AvroSchema
from stream_guard.records.decoding.frame import find_frame
from stream_guard.records.decoding.json_schema import JsonSchema
from stream_guard.records.decoding.protobuf import ProtobufSchema
from stream_guard.records.post import Post, PostParser
from stream_guard.settings import PostSettings

TREE: Final = {
    "type": "record",
    "name": "Node",
    "fields": [
        {"name": "id", "type": ["null", "string", "long", "double"]},
        {"name": "text", "type": ["null", "string", "bytes"]},
        {
            "name": "price",
            "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 400},
        },
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "uid", "type": {"type": "fixed", "name": "F", "size": 16, "logicalType": "uuid"}},
        {"name": "kind", "type": {"type": "enum", "name": "K", "symbols": ["A", "B"]}},
        {"name": "answers", "type": {"type": "array", "items": "Node"}},
        {"name": "by", "type": {"type": "map", "values": "Node"}},
    ],
}
FLAT: Final = {**TREE, "fields": TREE["fields"][:-2]}
LEAF: Final[dict[str, Any]] = {
    "id": "1", "text": "t", "price": b"\x04", "day": 3, "at": 5, "uid": bytes(16), "kind": "B", "answers": [], "by": {},
}  # fmt: skip


def avro(schema: Any, value: Any) -> bytes:
    """Return Avro's bytes of a value, whose logical types are raw already."""
    plain = {
        **schema,
        "fields": [{**field, "type": _plain(field["type"])} for field in schema["fields"]],
    }
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(plain), value)
    return out.getvalue()


def _plain(kind: Any) -> Any:
    return {k: v for k, v in kind.items() if k != "logicalType"} if isinstance(kind, dict) else kind


def proto() -> ProtobufSchema:
    """Return a schema whose message refers to itself, with one field of each kind."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="p.proto",
        package="p",
        syntax="proto3",
        dependency=[
            "google/protobuf/struct.proto",
            "google/protobuf/timestamp.proto",
            "confluent/type/decimal.proto",
        ],
    )
    message = file.message_type.add(name="M")
    kinds = [
        ("id", field.TYPE_STRING, ""), ("text", field.TYPE_STRING, ""), ("raw", field.TYPE_BYTES, ""),
        ("d", field.TYPE_DOUBLE, ""), ("m", field.TYPE_MESSAGE, ".p.M"), ("n", field.TYPE_SINT64, ""),
        ("extra", field.TYPE_MESSAGE, ".google.protobuf.Struct"),
        ("created_at", field.TYPE_MESSAGE, ".google.protobuf.Timestamp"),
        ("price", field.TYPE_MESSAGE, ".confluent.type.Decimal"),
    ]  # fmt: skip
    for number, (name, kind, of) in enumerate(kinds, 1):
        message.field.add(
            name=name, number=number, type=kind, type_name=of or None, label=field.LABEL_OPTIONAL
        )
    message.field.add(
        name="many",
        number=20,
        type=field.TYPE_MESSAGE,
        type_name=".p.M",
        label=field.LABEL_REPEATED,
    )
    return ProtobufSchema(file.SerializeToString(), [])


SCHEMAS: Final = {
    b"\0\0\0\1": AvroSchema(TREE, []),
    b"\0\0\0\2": AvroSchema(FLAT, []),
    b"\0\0\0\3": proto(),
    b"\0\0\0\4": JsonSchema(),
    b"\0\0\0\5": SchemaError("unknown"),
}
PARSER: Final = PostParser(
    PostSettings(author="/uid", tenant="/kind", title="/price"),
    SCHEMAS,
)
PROTO: Final = (
    b"\x0a\x011\x12\x01t\x1a\x02\xff\xfe\x2a\x03\x12\x01u\x42\x02\x08\x01"
    b"\x4a\x03\x0a\x01\x05\xa2\x01\x02\x0a\x00"
)
TREE_BYTES: Final = avro(TREE, {**LEAF, "answers": [LEAF, LEAF], "by": {"a": LEAF}})
GOOD: Final = (
    b"\0\0\0\0\1" + TREE_BYTES,
    b"\0\0\0\0\2" + TREE_BYTES,
    b"\0\0\0\0\3\0" + PROTO,
    b'\0\0\0\0\4{"id":"1","text":"t\\ud800","uid":[]}',
    b'{"id":"1","text":"t"}',
)


def test_values_that_json_does_not_have() -> None:
    document, _ = SCHEMAS[b"\0\0\0\1"].decode(TREE_BYTES, b"", 0, 64)  # type: ignore[union-attr]
    assert document["price"] == "0." + "0" * 399 + "4"
    assert (document["day"], document["at"], document["kind"]) == ("1970-01-04", 5, "B")
    assert document["uid"] == "00000000-0000-0000-0000-000000000000"
    assert document["by"]["a"]["id"] == "1"
    message, _ = SCHEMAS[b"\0\0\0\3"].decode(PROTO, b"\0", 0, 64)  # type: ignore[union-attr]
    assert message["raw"] == "//4="
    assert message["created_at"] == "1970-01-01T00:00:01Z"
    assert message["price"] == "5"
    assert (message["n"], message["d"], message["m"]["text"]) == (0, 0.0, "u")


@pytest.mark.parametrize("value", GOOD)
def test_the_examples_are_posts(value: bytes) -> None:
    assert PARSER.parse(value, []).id == "1"


@pytest.mark.parametrize("form", ["avro", "protobuf", "json_schema"])
def test_a_file_of_posts_is_json_whatever_the_format_of_the_topic(form: Literal["avro"]) -> None:
    assert PostParser(PostSettings(format=form)).parse(b'{"id":"1","text":"t"}', []).id == "1"


_FRAMES = st.sampled_from(GOOD)
_PATCHES = st.lists(
    st.tuples(st.integers(0, 400), st.binary(max_size=6), st.integers(0, 4)), max_size=6
)


def patched(value: bytes, patches: list[tuple[int, bytes, int]]) -> bytes:
    for at, new, cut in patches:
        place = at % (len(value) + 1)
        value = value[:place] + new + value[place + cut :]
    return value


@settings(max_examples=600, deadline=None)
@given(value=_FRAMES, patches=_PATCHES, header=st.none() | st.binary(max_size=24))
def test_any_bytes_give_a_post_or_an_error_of_the_record(
    value: bytes, patches: list[tuple[int, bytes, int]], header: bytes | None
) -> None:
    raw = patched(value, patches)
    headers = [] if header is None else [("__value_schema_id", header)]
    found = None
    with contextlib.suppress(RecordError):
        found = find_frame(raw, headers)
    # A schema that is not in memory: the source never hands such a record out.
    assume(found is None or found[0] in SCHEMAS)
    with contextlib.suppress(RecordError):
        assert isinstance(PARSER.parse(raw, headers), Post)


@settings(max_examples=300, deadline=None)
@given(start=st.integers(1, 4), rest=st.binary(max_size=300))
def test_any_payload_gives_a_post_or_an_error_of_the_record(start: int, rest: bytes) -> None:
    with contextlib.suppress(RecordError):
        assert isinstance(PARSER.parse(b"\0" + start.to_bytes(4) + rest, []), Post)


@pytest.mark.parametrize("levels", [65, 200, 5_000, 400_000])
def test_a_deep_record_of_a_recursive_schema_is_refused(levels: int) -> None:
    # fastavro's compiled reader ends the process at a depth of 100,000.
    chain = AvroSchema(
        {"type": "record", "name": "N", "fields": [{"name": "next", "type": ["null", "N"]}]}, []
    )
    assert chain.decode(b"\2" * 60 + b"\0", b"", 0, 64)[0]["next"]["next"] is not None
    with pytest.raises(TooDeepError):
        chain.decode(b"\2" * levels + b"\0", b"", 0, 64)


def test_a_deep_message_is_refused() -> None:
    nested = b""
    for _ in range(90):
        nested = b"\x2a" + _varint(len(nested)) + nested
    with pytest.raises(TooDeepError):
        SCHEMAS[b"\0\0\0\3"].decode(nested, b"\0", 0, 64)  # type: ignore[union-attr]
    for _ in range(2_000):
        nested = b"\x2a" + _varint(len(nested)) + nested
    with pytest.raises(DecodeError):
        SCHEMAS[b"\0\0\0\3"].decode(nested, b"\0", 0, 64)  # type: ignore[union-attr]


def _varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes((value & 127 | 128,))
        value >>= 7
    return out + bytes((value,))


@pytest.mark.parametrize(
    "items",
    [
        "null",
        {"type": "fixed", "name": "Z", "size": 0},
        {"type": "record", "name": "E", "fields": []},
    ],
)
def test_an_array_whose_count_alone_makes_values_is_refused(items: Any) -> None:
    with pytest.raises(SchemaError, match="items without bytes"):
        AvroSchema({"type": "array", "items": items}, [])


@pytest.mark.parametrize(
    "schema",
    [None, 5, "nope", {}, {"type": "record"}, {"type": "enum", "name": "x"}, ["int", "nope"]],
)
def test_what_is_no_avro_schema_is_refused(schema: Any) -> None:
    with pytest.raises(SchemaError, match="not an Avro schema"):
        AvroSchema(schema, [])


def test_what_is_no_protobuf_schema_is_refused() -> None:
    with pytest.raises(SchemaError, match="not a Protobuf schema"):
        ProtobufSchema(b"\xff\xff", [])
    missing = descriptor_pb2.FileDescriptorProto(name="a.proto", dependency=["b.proto"])
    with pytest.raises(SchemaError, match=r"imports b\.proto"):
        ProtobufSchema(missing.SerializeToString(), [])


@pytest.mark.parametrize(
    "indexes", [b"", b"\x02", b"\x02\x40", b"\x01", b"\xff\xff\xff\xff\xff\xff", b"\x04\x00"]
)
def test_indexes_that_name_no_message_are_refused(indexes: bytes) -> None:
    with pytest.raises(DecodeError):
        SCHEMAS[b"\0\0\0\3"].decode(indexes, indexes, 0, 64)  # type: ignore[union-attr]


def test_a_long_value_behind_a_frame_still_has_the_limits_of_its_fields() -> None:
    # A symbol of an enum is longer than the value that names it.
    schema = {
        "type": "record",
        "name": "R",
        "fields": [
            {"name": "id", "type": "string"},
            {"name": "text", "type": "string"},
            {"name": "author", "type": {"type": "enum", "name": "E", "symbols": ["A" * 5_000]}},
        ],
    }
    schemas = {b"\0\0\0\1": AvroSchema(schema, [])}
    post = PostParser(PostSettings(), schemas).parse(b"\0\0\0\0\1\x021\x02t\x00", [])
    assert (post.author, post.nulled) == (None, ("author",))
