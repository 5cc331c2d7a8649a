"""The schemas of verdicts and dead letters are registered or looked up at the start, and Confluent's reader reads them.

The deserializer is the real one of confluent-kafka. The registry is the stand-in of ``tests/registry.py``, over HTTP.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson
import pytest
from confluent_kafka.schema_registry import (
    SchemaRegistryClient,
    record_subject_name_strategy,
    topic_record_subject_name_strategy,
    topic_subject_name_strategy,
)
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext
from pydantic import ValidationError

from stream_guard.client import ClientError, SchemaRegistry, UnreadableVerdictError, parse_verdict
from stream_guard.core.errors import RegistryError, SettingsError
from stream_guard.kafka.registry.output import check_output, open_output
from stream_guard.records.verdict_event import VerdictEvents
from stream_guard.settings import Settings
from tests.registry import RegistryServer, start_registry
from tests.verdicts import make_verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT: Final = Path(__file__).resolve().parents[2]
KAFKA: Final = {"verdict_topic": "v", "dead_letter_topic": "d", "shadow_topic": "s"}
STRATEGIES: Final[dict[str, Callable[[SerializationContext, str], str | None]]] = {
    "topic": topic_subject_name_strategy,
    "record": record_subject_name_strategy,
    "topic_record": topic_record_subject_name_strategy,
}


@pytest.fixture
def server() -> Iterator[RegistryServer]:
    with start_registry() as started:
        yield started


def settings_of(url: str, **output: Any) -> Settings:  # noqa: ANN401 - values of settings
    return Settings(kafka=KAFKA, registry={"url": url}, output={"format": "avro", **output})  # type: ignore[arg-type]  # pydantic reads the tables


def published(name: str) -> str:
    return (ROOT / "docs/contracts" / name).read_text("utf-8")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_subjects_are_those_of_confluents_strategies(server: RegistryServer, strategy: str) -> None:
    settings = settings_of(server.url, subject_name_strategy=strategy)
    says = asyncio.run(check_output(settings))
    assert "gets its schema at the start" in says
    assert server.registry.subjects == {}  # a check changes nothing
    outputs = asyncio.run(open_output(settings))
    assert outputs is not None
    expected = {
        STRATEGIES[strategy](
            SerializationContext(topic, MessageField.VALUE), f"streamguard.v1.{name}"
        )
        for topic, name in (("v", "Verdict"), ("d", "DeadLetter"), ("s", "Verdict"))
    }
    assert set(server.registry.subjects) == expected
    # A second start changes nothing.
    asyncio.run(open_output(settings))
    assert {len(versions) for versions in server.registry.subjects.values()} == {1}
    assert "has schema id 1" in asyncio.run(check_output(settings))
    verdict = make_verdict()
    value, _ = VerdictEvents(0).encode(verdict, "", outputs.verdicts["s"])
    read = AvroDeserializer(SchemaRegistryClient({"url": server.url}))
    found = read(value, SerializationContext("s", MessageField.VALUE))
    assert isinstance(found, dict)
    assert (found["id"], found["source"]) == (verdict["id"], verdict["source"])


def test_json_asks_no_registry() -> None:
    assert asyncio.run(open_output(Settings())) is None


def test_without_registration_the_published_schemas_must_be_there(server: RegistryServer) -> None:
    settings = settings_of(server.url, auto_register=False)
    for start in (open_output, check_output):
        with pytest.raises(SettingsError, match=r"v-value .*docs/contracts/verdict-1\.1\.avsc"):
            asyncio.run(start(settings))
    for subject, name in (("v", "verdict-1.1"), ("d", "dead-letter-1.0"), ("s", "verdict-1.1")):
        schema = orjson.dumps(orjson.loads(published(f"{name}.avsc"))).decode()
        server.registry.register(f"{subject}-value", schema)
    server.registry.requests.clear()
    assert asyncio.run(open_output(settings)) is not None
    assert not [each for each in server.registry.requests if each.endswith("/versions")]


def test_an_incompatible_subject_is_named(server: RegistryServer) -> None:
    other = {"type": "record", "name": "Other", "fields": [{"name": "x", "type": "long"}]}
    server.registry.register("d-value", other)
    for start in (open_output, check_output):
        with pytest.raises(SettingsError, match=r"d-value.* incompatible .*; choose another"):
            asyncio.run(start(settings_of(server.url)))


def test_a_registry_that_is_away_or_refuses_is_named(server: RegistryServer) -> None:
    settings = settings_of(server.url)
    server.registry.authorization = "Basic nothing"
    with pytest.raises(
        RegistryError, match=r"refused the credentials \(HTTP 401\); check registry"
    ):
        asyncio.run(open_output(settings))
    server.registry.authorization = None
    server.registry.failing = 403
    with pytest.raises(RegistryError, match=r"HTTP 403\); let this user write this subject, or"):
        asyncio.run(open_output(settings))
    server.stop()
    with pytest.raises(RegistryError, match=r"cannot be reached: connection refused; check regis"):
        asyncio.run(open_output(settings))


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"registry": {}}, "registry.url"), ({"kafka": {"cloudevents_mode": "structured"}}, "binary")],
)
def test_settings_that_do_not_fit_are_refused(changes: dict[str, Any], says: str) -> None:
    base: dict[str, Any] = {"registry": {"url": "http://r:1"}, "output": {"format": "avro"}}
    with pytest.raises(ValidationError, match=says):
        Settings(**{**base, **changes})


async def test_the_client_reads_avro_by_the_registry(server: RegistryServer) -> None:
    outputs = await open_output(settings_of(server.url))
    assert outputs is not None
    verdict = make_verdict(decision="violates", category="S1")
    value, _ = VerdictEvents(0).encode(verdict, "", outputs.verdicts["v"])
    with pytest.raises(UnreadableVerdictError, match="name the schema registry"):
        parse_verdict(value, "v/0/0")
    async with SchemaRegistry(server.url) as registry:
        assert not registry.is_known(value)
        await registry.fetch(value)
        assert registry.is_known(value)
        assert parse_verdict(value, "v/0/0", registry.known) == parse_verdict(orjson.dumps(verdict))
        # A schema that does not exist is an unreadable verdict; a registry that is away is not.
        unknown = b"\x00\x00\x00\x00\x63" + value[5:]
        await registry.fetch(unknown)
        with pytest.raises(UnreadableVerdictError, match=r"schema id 99 .* does not exist"):
            parse_verdict(unknown, "v/0/1", registry.known)
        with pytest.raises(UnreadableVerdictError, match="do not follow"):
            parse_verdict(value[:9], "v/0/2", registry.known)
        server.stop()
        with pytest.raises(RegistryError, match="cannot be reached"):
            await registry.fetch(b"\x00\x00\x00\x00\x64")
    assert issubclass(UnreadableVerdictError, ClientError)
