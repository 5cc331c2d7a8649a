"""What Confluent's own serializers write is read as the post that was written: Avro, Protobuf and JSON Schema.

The serializers are the real ones of confluent-kafka. The registry is the stand-in of ``tests/registry.py``, over HTTP.
"""

# ruff: noqa: ANN401 - Confluent serializers, and documents of any form

from __future__ import annotations

import asyncio
import datetime as dt
import decimal
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import grpc_tools
import pytest
from confluent_kafka.schema_registry import (
    Schema,
    SchemaReference,
    SchemaRegistryClient,
    header_schema_id_serializer,
    prefix_schema_id_serializer,
    topic_subject_name_strategy,
)
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_tools import protoc

from stream_guard.core.errors import NotAPostError, RecordError, SchemaError
from stream_guard.kafka.registry.assembly import open_parser
from stream_guard.records.post import PostParser
from stream_guard.settings import Settings
from tests.registry import RegistryServer, start_registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stream_guard.records.post import Post

POST_AVRO: Final = {
    "type": "record",
    "name": "Post",
    "namespace": "shop",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "text", "type": ["null", "string"], "default": None},
        {"name": "raw", "type": "bytes"},
        {"name": "picture", "type": "bytes"},
        {
            "name": "price",
            "type": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2},
        },
        {"name": "created_at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "edited", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "uid", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["POST", "LIKE"]}},
        {"name": "counts", "type": {"type": "map", "values": "int"}},
        {
            "name": "author",
            "type": {
                "type": "record",
                "name": "Author",
                "fields": [{"name": "id", "type": "string"}],
            },
        },
        {"name": "others", "type": {"type": "array", "items": ["null", "Author", "string"]}},
    ],
}
NOON: Final = dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC)
AVRO: Final = {
    "id": 7,
    "text": "héllo",
    "raw": b"plain",
    "picture": b"\xff\xd8",
    "price": decimal.Decimal("-12.30"),
    "created_at": NOON,
    "edited": NOON,
    "day": dt.date(2026, 5, 1),
    "uid": "0b0ec5a2-6d0e-4b4f-8a5c-52a2f1bd7b11",
    "kind": "LIKE",
    "counts": {"likes": 3},
    "author": {"id": "a1"},
    "others": [None, {"id": "a2"}, "free"],
}
READ_AVRO: Final = {
    **AVRO,
    "raw": "plain",
    "picture": "/9g=",
    "price": "-12.30",
    "created_at": 1_777_636_800_000,
    "edited": 1_777_636_800_000_000,
    "day": "2026-05-01",
}
POST_PROTO: Final = """
syntax = "proto3";
package shop;
import "google/protobuf/struct.proto";
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
enum Kind { UNKNOWN = 0; POST = 1; }
message Envelope {
  message Post {
    int64 id = 1;
    string text = 2;
    bytes picture = 3;
    google.protobuf.Timestamp created_at = 4;
    Kind kind = 5;
    map<string, int32> counts = 6;
    oneof body { string plain = 7; string html = 8; }
    repeated string tags = 9;
    Author author = 10;
    optional string language = 11;
    google.protobuf.Struct extra = 12;
    google.protobuf.StringValue title = 13;
    uint64 large = 14;
    bool hidden = 15;
  }
  Post post = 1;
}
message Author { string id = 1; }
"""
READ_PROTO: Final = {
    "id": 7,
    "text": "héllo",
    "picture": "/9g=",
    "created_at": "2026-05-01T12:00:00Z",
    "kind": "POST",
    "counts": {"likes": 3},
    "plain": "body",
    "tags": ["a", "b"],
    "author": {"id": "a1"},
    "extra": {"score": 0.5, "none": None},
    "title": "Title",
    "large": 2**64 - 1,
    "hidden": False,
}
POST_JSON: Final = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "title": "Post",
    "type": "object",
    "properties": {"id": {"type": "string"}, "text": {"type": "string"}},
}
NAMED: Final = {"schema.id.serializer": prefix_schema_id_serializer}
IN_HEADER: Final = {"schema.id.serializer": header_schema_id_serializer}


@dataclass
class Written:
    """A record as a parser sees it."""

    value: bytes | None
    headers: list[tuple[str, bytes]]
    offset: int = 0
    topic: str = "posts"


@pytest.fixture(scope="module")
def server() -> Iterator[RegistryServer]:
    with start_registry() as started:
        yield started


@pytest.fixture(scope="module")
def client(server: RegistryServer) -> SchemaRegistryClient:
    return SchemaRegistryClient({"url": server.url})


def settings(server: RegistryServer, **post: Any) -> Settings:
    return Settings(registry={"url": server.url}, post=post)  # type: ignore[arg-type]


def read(server: RegistryServer, record: Written, **post: Any) -> tuple[Post, Any]:
    """Parse one record by the settings."""

    async def parse() -> tuple[Post, Any]:
        async with open_parser(settings(server, **post)) as parser:
            return await parser.parse(record)  # type: ignore[arg-type]

    return asyncio.run(parse())


def written(serializer: Any, value: Any) -> Written:
    """Return what Confluent's serializer writes, with its headers."""
    headers: list[tuple[str, bytes]] = []
    context = SerializationContext("posts", MessageField.VALUE, headers)
    return Written(serializer(value, context), headers)


def compiled(text: str, name: str, folder: Path) -> Any:
    """Return a class of messages by its full name, as protoc compiles it."""
    (folder / "post.proto").write_text(text, "utf-8")
    well_known = Path(grpc_tools.__file__).parent / "_proto"
    out = folder / "set.bin"
    arguments = [f"-I{folder}", f"-I{well_known}", f"--descriptor_set_out={out}", "post.proto"]
    assert protoc.main(["protoc", "--include_imports", *arguments]) == 0
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file:
        pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


@pytest.mark.parametrize("place", [NAMED, IN_HEADER], ids=["prefix", "header"])
@pytest.mark.parametrize("form", ["auto", "avro"])
def test_avro_of_confluents_serializer_is_read(
    server: RegistryServer, client: SchemaRegistryClient, place: dict[str, Any], form: str
) -> None:
    record = written(AvroSerializer(client, json.dumps(POST_AVRO), conf=place), AVRO)
    assert bool(record.headers) == (place is IN_HEADER)
    post, document = read(server, record, format=form, author="/author/id", tenant="/kind")
    assert document == READ_AVRO
    assert (post.id, post.text, post.author, post.tenant) == ("7", "héllo", "a1", "LIKE")
    assert post.created_at_ms == 1_777_636_800_000


def test_avro_with_a_referenced_schema_is_read(
    server: RegistryServer, client: SchemaRegistryClient
) -> None:
    author = {
        "type": "record",
        "name": "Author",
        "namespace": "shared",
        "fields": [{"name": "id", "type": "string"}],
    }
    client.register_schema("author", Schema(json.dumps(author), "AVRO"))
    post = {
        "type": "record",
        "name": "Post",
        "fields": [
            {"name": "id", "type": "string"},
            {"name": "text", "type": "string"},
            {"name": "author", "type": ["null", "shared.Author"]},
        ],
    }
    schema = Schema(json.dumps(post), "AVRO", [SchemaReference("shared.Author", "author", 1)])
    record = written(
        AvroSerializer(client, schema), {"id": "1", "text": "t", "author": {"id": "a"}}
    )
    post_, document = read(server, record, author="/author/id")
    assert document == {"id": "1", "text": "t", "author": {"id": "a"}}
    assert post_.author == "a"


@pytest.mark.parametrize("place", [NAMED, IN_HEADER], ids=["prefix", "header"])
def test_protobuf_of_confluents_serializer_is_read(
    server: RegistryServer, client: SchemaRegistryClient, place: dict[str, Any], tmp_path: Path
) -> None:
    kind = compiled(POST_PROTO, "shop.Envelope.Post", tmp_path)
    message = kind(
        id=7, text="héllo", picture=b"\xff\xd8", kind=1, counts={"likes": 3}, plain="body",
        tags=["a", "b"], author={"id": "a1"}, large=2**64 - 1,
    )  # fmt: skip
    message.created_at.FromDatetime(NOON)
    message.extra.update({"score": 0.5, "none": None})
    message.title.value = "Title"
    serializer = ProtobufSerializer(kind, client, {"use.deprecated.format": False, **place})
    post, document = read(
        server, written(serializer, message), format="protobuf", author="/author/id", title="/title"
    )
    assert document == READ_PROTO
    assert (post.id, post.text, post.author, post.title) == ("7", "héllo", "a1", "Title")
    assert post.created_at_ms == 1_777_636_800_000
    assert post.language is None


@pytest.mark.parametrize("place", [NAMED, IN_HEADER], ids=["prefix", "header"])
def test_json_schema_of_confluents_serializer_is_read(
    server: RegistryServer, client: SchemaRegistryClient, place: dict[str, Any]
) -> None:
    serializer = JSONSerializer(json.dumps(POST_JSON), client, conf=place)
    post, document = read(
        server, written(serializer, {"id": "1", "text": "héllo"}), format="json_schema"
    )
    assert document == {"id": "1", "text": "héllo"}
    assert post.text == "héllo"


def test_conditions_see_the_decoded_document(
    server: RegistryServer, client: SchemaRegistryClient
) -> None:
    record = written(AvroSerializer(client, json.dumps(POST_AVRO)), AVRO)
    assert read(server, record, where={"/kind": "LIKE", "/counts/likes": 3})[0].id == "7"
    with pytest.raises(NotAPostError):
        read(server, record, where={"/kind": "POST"})


def test_auto_still_reads_plain_json_and_cloud_events(server: RegistryServer) -> None:
    assert read(server, Written(b'{"id":"1","text":"t"}', []))[0].id == "1"
    headers = [(f"ce_{name}", b"x") for name in ("id", "source", "type")] + [
        ("ce_specversion", b"1.0")
    ]
    assert (
        read(server, Written(b'{"id":"2","text":"t"}', headers), format="cloudevents")[0].id == "2"
    )


def test_avro_in_a_cloud_event_is_read(
    server: RegistryServer, client: SchemaRegistryClient
) -> None:
    record = written(AvroSerializer(client, json.dumps(POST_AVRO)), AVRO)
    record.headers += [(f"ce_{name}", b"x") for name in ("id", "source", "type")]
    record.headers.append(("ce_specversion", b"1.0"))
    assert read(server, record, format="cloudevents")[0].id == "7"


@pytest.mark.parametrize(
    ("make", "form", "said"),
    [
        (
            lambda _: Written(b"\0\0\0\x03\xe7{}", []),
            "auto",
            "schema id 999 from the registry at .*40403",
        ),
        (
            lambda _: Written(b"x", [("__value_schema_id", b"\1" + bytes(16))]),
            "auto",
            "schema GUID 00000000-0000-0000-0000-000000000000 .*40403",
        ),
        (
            lambda _: Written(b"{}", [("__value_schema_id", b"\2")]),
            "auto",
            "__value_schema_id is malformed",
        ),
        (
            lambda _: Written(b'{"id":"1","text":"t"}', []),
            "avro",
            "names no schema, but post.format is avro",
        ),
        (
            lambda client: written(AvroSerializer(client, json.dumps(POST_AVRO)), AVRO),
            "protobuf",
            "schema id [0-9]+ is of the kind avro; post.format is protobuf",
        ),
    ],
)
def test_a_schema_that_is_unknown_or_of_another_kind_is_named(
    server: RegistryServer,
    client: SchemaRegistryClient,
    make: Callable[[SchemaRegistryClient], Written],
    form: str,
    said: str,
) -> None:
    with pytest.raises(SchemaError, match=said):
        read(server, make(client), format=form)


def test_subjects_are_named_as_confluent_does(client: SchemaRegistryClient) -> None:
    # The stand-in answers the serializers' own registration, so this shows that it kept the subject.
    AvroSerializer(client, json.dumps(POST_AVRO))(
        AVRO, SerializationContext("named", MessageField.VALUE)
    )
    subject = topic_subject_name_strategy(SerializationContext("named", MessageField.VALUE), None)
    assert subject in client.get_subjects()


def test_without_a_registry_a_frame_names_the_setting(client: SchemaRegistryClient) -> None:
    parser = PostParser(Settings().post)
    for place in (NAMED, IN_HEADER):
        record = written(AvroSerializer(client, json.dumps(POST_AVRO), conf=place), AVRO)
        with pytest.raises(RecordError, match=r"registry\.url"):
            parser.parse(record.value, record.headers)
