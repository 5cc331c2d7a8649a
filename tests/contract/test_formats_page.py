"""Every settings file and example of the page on formats is executed: Confluent's serializers write, the settings read.

The registry is the stand-in of ``tests/registry.py``.
"""

# ruff: noqa: ANN401 - schemas and documents of any form

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import decimal
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import jsonschema
import pytest
import yaml
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from markdown_it import MarkdownIt

from stream_guard.core.errors import SettingsError
from stream_guard.kafka.registry.assembly import open_parser
from stream_guard.kafka.registry.output import open_output, subject_of
from stream_guard.records.avro_contract import contract_of
from stream_guard.service.diagnostics.checks import _registry
from stream_guard.settings import Settings, load_settings
from tests.contract.test_registry_formats import POST_JSON, Written, compiled, written
from tests.registry import RegistryServer, start_registry
from tests.unit.kafka.test_connection_failure import Authority, tls

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

    from stream_guard.records.post import Post

ROOT: Final = Path(__file__).resolve().parents[2]
URL: Final = "https://registry.example.com:8081"
SECRETS: Final = "/run/secrets/registry"
TEXT: Final = (ROOT / "docs/guides/kafka-formats.md").read_text("utf-8")
_TOKENS: Final = [token for token in MarkdownIt().parse(TEXT) if token.type == "fence"]
BLOCKS: Final = {
    kind: [token.content for token in _TOKENS if token.info == kind]
    for kind in {token.info for token in _TOKENS}
}
FILES: Final = {text.split("\n", 1)[0].removeprefix("# "): text for text in BLOCKS["toml"]}
AVRO, READ_AVRO, READ_PROTO = map(json.loads, BLOCKS["json"])
NOON: Final = dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC)


@pytest.fixture
def server() -> Iterator[RegistryServer]:
    with start_registry() as started:
        yield started


def avro(url: str, **changes: Any) -> Written:
    """Return the page's post as Confluent's serializer writes it."""
    document = {
        **READ_AVRO,
        "created_at": NOON,
        "day": NOON.date(),
        "price": decimal.Decimal("12.30"),
        "raw": base64.b64decode(READ_AVRO["raw"]),
        **changes,
    }
    return written(AvroSerializer(SchemaRegistryClient({"url": url}), json.dumps(AVRO)), document)


def protobuf(url: str, folder: Path) -> Written:
    """Return the page's message as Confluent's serializer writes it."""
    (text,) = BLOCKS["proto"]
    kind = compiled(text, "Post", folder)
    message = kind(id="p1", text="A post", kind=1, author={"id": "a1"}, counts={"likes": 3})
    message.created_at.FromDatetime(NOON)
    client = SchemaRegistryClient({"url": url})
    return written(ProtobufSerializer(kind, client, {"use.deprecated.format": False}), message)


def settings_of(name: str, url: str, folder: Path) -> Settings:
    """Return the settings of one file of the page; only the registry's address and the folder of secrets differ."""
    text = FILES[name]
    assert URL in text
    file = folder / f"{name}.toml"
    file.write_text(text.replace(URL, url).replace(SECRETS, str(folder)), "utf-8")
    return load_settings(file)


def read(settings: Settings, record: Written) -> tuple[Post, Any]:
    async def parse() -> tuple[Post, Any]:
        async with open_parser(settings) as parser:
            return await parser.parse(record)  # type: ignore[arg-type]

    return asyncio.run(parse())


def test_every_file_of_the_page_is_executed_here() -> None:
    formats = {"auto", "avro", "protobuf", "json_schema", "where", "topic"}
    assert set(FILES) == formats | {"basic", "bearer", "mutual", "output", "look_up"}
    assert {kind: len(texts) for kind, texts in BLOCKS.items()} == {
        "toml": 11, "yaml": 1, "json": 3, "proto": 1, "python": 1,
    }  # fmt: skip


def test_output_in_avro(server: RegistryServer, tmp_path: Path) -> None:
    settings = settings_of("output", server.url, tmp_path)
    assert asyncio.run(open_output(settings)) is not None
    verdicts = settings.kafka.verdict_topic
    assert f"{verdicts}-value" in server.registry.subjects
    (table,) = [
        part for part in TEXT.split("\n\n") if "subject_name_strategy" in part and "|---" in part
    ]
    for row in table.splitlines()[2:]:
        strategy, subject = (cell.strip().split("`")[1] for cell in row.strip("|").split("|"))
        changed = settings.output.model_copy(update={"subject_name_strategy": strategy})
        with_strategy = settings.model_copy(update={"output": changed})
        assert subject_of(with_strategy, verdicts, contract_of("verdict-1.1.avsc")) == subject


def test_output_in_avro_without_registration(server: RegistryServer, tmp_path: Path) -> None:
    settings = settings_of("look_up", server.url, tmp_path)
    with pytest.raises(SettingsError, match=r"register docs/contracts/verdict-1\.1\.avsc under"):
        asyncio.run(open_output(settings))
    for name, file in (("Verdict", "verdict-1.1"), ("DeadLetter", "dead-letter-1.0")):
        schema = json.loads((ROOT / f"docs/contracts/{file}.avsc").read_text("utf-8"))
        text = json.dumps(schema, separators=(",", ":"))
        server.registry.register(f"streamguard.v1.{name}", text)
    assert asyncio.run(open_output(settings)) is not None


@pytest.mark.parametrize("name", ["auto", "avro", "where", "topic"])
def test_a_post_in_avro(server: RegistryServer, tmp_path: Path, name: str) -> None:
    settings = settings_of(name, server.url, tmp_path)
    post, document = read(settings, avro(server.url))
    assert document == READ_AVRO
    assert (post.id, post.created_at_ms) == ("p1", READ_AVRO["created_at"])
    assert post.author == ("a1" if name in ("avro", "topic") else None)


def test_a_post_in_protobuf(server: RegistryServer, tmp_path: Path) -> None:
    record = protobuf(server.url, tmp_path)
    post, document = read(settings_of("protobuf", server.url, tmp_path), record)
    assert document == READ_PROTO
    assert (post.author, post.created_at_ms) == ("a1", READ_AVRO["created_at"])


def test_a_post_in_json_schema(server: RegistryServer, tmp_path: Path) -> None:
    serializer = JSONSerializer(json.dumps(POST_JSON), SchemaRegistryClient({"url": server.url}))
    document = {"id": "p1", "text": "A post", "author": {"id": "a1"}}
    post, found = read(
        settings_of("json_schema", server.url, tmp_path), written(serializer, document)
    )
    assert (found, post.author) == (document, "a1")


@pytest.mark.parametrize(
    ("name", "file", "header"),
    [
        ("basic", "password", "Basic " + base64.b64encode(b"guard:s3cret").decode()),
        ("bearer", "token", "Bearer s3cret"),
    ],
)
def test_credentials_of_a_file(
    server: RegistryServer, tmp_path: Path, name: str, file: str, header: str
) -> None:
    record = avro(server.url)
    server.registry.authorization = header
    (tmp_path / file).write_text("s3cret\n")
    settings = settings_of(name, server.url, tmp_path)
    assert read(settings, record)[0].id == "p1"
    assert _registry(settings) == f"{server.url} answers and supports AVRO, JSON, PROTOBUF"


def test_a_client_certificate(tmp_path: Path) -> None:
    ours = Authority(tmp_path, "ca")
    context: ssl.SSLContext = tls(ours.issue("localhost"), clients=ours)
    for name, made in zip(("tls.crt", "tls.key"), ours.issue("guard"), strict=True):
        made.rename(tmp_path / name)
    ours.file.rename(tmp_path / "ca.crt")
    with start_registry() as plain:
        record = avro(plain.url)
        with start_registry(context) as secured:
            secured.registry.schemas = plain.registry.schemas
            settings = settings_of("mutual", secured.url, tmp_path)
            assert read(settings, record)[0].id == "p1"


def test_the_charts_values_are_valid() -> None:
    values = yaml.safe_load(BLOCKS["yaml"][0])
    schema = json.loads((ROOT / "helm/stream-guard/values.schema.json").read_text("utf-8"))
    jsonschema.validate(values["config"], schema["properties"]["config"])
    secret = {"registry": {**values["config"]["registry"], "password": "x"}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(secret, schema["properties"]["config"])
    (variable,) = values["extraEnv"]
    assert variable["name"] == "STREAM_GUARD_REGISTRY__PASSWORD"
