"""Verdicts and dead letters in Avro on a real broker: Confluent's reader and every reader of ours read them."""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING, Any, Final

import orjson
import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

from stream_guard.client import UnreadableVerdictError, VerdictConsumer
from stream_guard.client.registry import SchemaRegistry
from stream_guard.core.errors import SettingsError
from stream_guard.kafka.sinks import TopicSink
from stream_guard.offline.audit.replay_run import Wanted, find_verdicts
from stream_guard.offline.export.dsa_run import topic_verdicts
from stream_guard.settings import Settings
from tests.contract.test_formats_page import BLOCKS
from tests.integration.harness import deploy, post, produce, read, run_command, running
from tests.integration.test_cli_kafka import guard
from tests.integration.test_dead_letters import dlq
from tests.registry import RegistryServer, start_registry
from tests.verdicts import FakeRecord, make_verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from stream_guard.testing import Broker
    from tests.integration.harness import Deployment

POSTS: Final = 4
POLICIES: Final = 2
BROKEN: Final = b"\xffnot JSON"


@pytest.fixture
def registry() -> Iterator[RegistryServer]:
    with start_registry() as server:
        yield server


def avro(registry: RegistryServer, **extra: str) -> dict[str, str]:
    return {
        "STREAM_GUARD_REGISTRY__URL": registry.url,
        "STREAM_GUARD_OUTPUT__FORMAT": "avro",
        **extra,
    }


def confluent(registry: RegistryServer, record: Any) -> dict[str, Any]:  # noqa: ANN401 - aiokafka ships no types
    """Return what Confluent's deserializer reads."""
    read_avro = AvroDeserializer(SchemaRegistryClient({"url": registry.url}))
    found = read_avro(record.value, SerializationContext(record.topic, MessageField.VALUE))
    assert isinstance(found, dict)
    return found


async def judged(place: Deployment, log: Path) -> tuple[list[Any], list[Any]]:
    """Run the service over posts and a broken record; return the records of verdicts and dead letters."""
    posts = [post(n, "fine" if n else "[violates]") for n in range(POSTS)]
    await produce(place.bootstrap, place.posts, [*posts, BROKEN])
    with running(place, log) as run:
        await asyncio.to_thread(run.wait_for, "ready")
        owed = POSTS * POLICIES
        topics = [place.verdicts, place.dead]
        records = await read(place.bootstrap, topics, lambda got: len(got) >= owed + 1)
        assert run.end() == 0, run.tail()
    letters = [record for record in records if record.topic == place.dead]
    return [record for record in records if record.topic == place.verdicts], letters


def settings_of(place: Deployment, registry: RegistryServer) -> Settings:
    return Settings(
        kafka={
            "bootstrap_servers": place.bootstrap,
            "verdict_topic": place.verdicts,
            "dead_letter_topic": place.dead,
        },
        registry={"url": registry.url},
        output={"format": "avro"},
    )  # type: ignore[arg-type]  # pydantic reads the tables


@pytest.mark.parametrize("mode", ["at_least_once", "exactly_once"])
async def test_confluents_reader_reads_both_topics(
    broker: Broker,
    new_topic: Callable[..., str],
    registry: RegistryServer,
    tmp_path: Path,
    mode: str,
) -> None:
    extra = avro(registry, STREAM_GUARD_DELIVERY__MODE=mode)
    place = deploy(broker.bootstrap_servers, new_topic, **extra)
    verdicts, letters = await judged(place, tmp_path / "log")
    read_verdicts = [confluent(registry, record) for record in verdicts]
    assert {each["content"]["id"] for each in read_verdicts} == {f"p{n}" for n in range(POSTS)}
    assert len({each["id"] for each in read_verdicts}) == POSTS * POLICIES
    for record, verdict in zip(verdicts, read_verdicts, strict=True):
        headers = dict(record.headers)
        assert headers["content-type"] == b"application/avro"
        assert headers["ce_id"].decode() == verdict["id"]
    (letter,) = letters
    found = confluent(registry, letter)
    assert (found["reason"], found["value"], found["topic"]) == ("encoding", BROKEN, place.posts)
    assert dict(letter.headers)["sg_format"] == b"avro"
    assert set(registry.registry.subjects) == {f"{place.verdicts}-value", f"{place.dead}-value"}
    # Registered once at the start, and not asked for again by what writes.
    posted = [each for each in registry.registry.requests if each.startswith("POST")]
    assert len(posted) == len(set(posted)) == 2


async def test_each_reader_of_ours_reads_avro(
    broker: Broker, new_topic: Callable[..., str], registry: RegistryServer, tmp_path: Path
) -> None:
    place = deploy(broker.bootstrap_servers, new_topic, **avro(registry))
    verdicts, _ = await judged(place, tmp_path / "log")
    expected = {confluent(registry, record)["id"] for record in verdicts}
    settings = settings_of(place, registry)
    environment = {k: v for k, v in place.environment().items() if k.startswith("STREAM_GUARD_")}

    # stream-guard tail
    count = str(len(verdicts))
    done = await asyncio.to_thread(
        guard, broker, "tail", "--json", "--from-beginning", "-n", count, **environment
    )
    assert {orjson.loads(line)["id"] for line in done.stdout.splitlines()} == expected, done.stderr

    # The client, with the registry and without it.
    async def first(registry_: SchemaRegistry | None) -> str:
        async with VerdictConsumer(
            place.bootstrap,
            group_id=f"client-{registry_ is None}",
            topic=place.verdicts,
            decisions=None,
            registry=registry_,
        ) as consumer:
            async for verdict in consumer:
                return verdict.id
        raise AssertionError("it never ends")

    assert await first(SchemaRegistry(registry.url)) in expected
    page: dict[str, Any] = {}
    exec(BLOCKS["python"][0], page)  # noqa: S102 - the code of the page on formats
    assert await page["read"](place.bootstrap, place.verdicts, registry.url) in expected
    with pytest.raises(UnreadableVerdictError, match="name the schema registry"):
        await first(None)

    # stream-guard replay, export dsa and backtest
    found = await find_verdicts(settings, Wanted(), lambda _done, _all: None)
    assert {each["id"] for each in found} == expected
    assert {each["id"] for each in await topic_verdicts(settings, None, None)} == expected
    own = new_topic("backtest")
    async with TopicSink(settings, own) as sink:
        await sink.write([(FakeRecord(), make_verdict())], 1)
        assert [each async for each in sink.written()] == [make_verdict()]
    assert f"{own}-value" in registry.registry.subjects

    # stream-guard dlq
    listed = orjson.loads((await dlq(place, "list", "--json")).stdout)
    assert (listed["reasons"], listed["cut"]) == ({"encoding": 1}, 0)
    (letter,) = listed["dead_letters"]
    shown = await dlq(place, "show", letter["id"], "--content", "--json")
    assert base64.b64decode(orjson.loads(shown.stdout)["value_base64"]) == BROKEN
    del place.extra["STREAM_GUARD_REGISTRY__URL"]
    refused = await dlq(place, "list", STREAM_GUARD_OUTPUT__FORMAT="json")
    assert isinstance(refused.exception, SettingsError), refused.stdout
    assert "set registry.url (STREAM_GUARD_REGISTRY__URL)" in str(refused.exception)
    place.extra["STREAM_GUARD_REGISTRY__URL"] = registry.url
    replayed = await dlq(place, "replay", "--json")
    assert orjson.loads(replayed.stdout)["sent"] == 1, replayed.stderr
    assert orjson.loads((await dlq(place, "replay", "--json")).stdout)["replayed_before"] == 1
    records = await read(place.bootstrap, [place.posts], lambda got: len(got) > POSTS + 1)
    assert [record.value for record in records].count(BROKEN) == 2
    # The marker has no value, so no reader of Avro meets JSON.
    dead = await read(place.bootstrap, [place.dead], lambda got: len(got) > 1)
    assert [record.value is None for record in dead].count(True) == 1


async def test_a_round_trip_and_check_know_avro(
    broker: Broker, new_topic: Callable[..., str], registry: RegistryServer, tmp_path: Path
) -> None:
    place = deploy(broker.bootstrap_servers, new_topic, **avro(registry))
    environment = place.environment()
    before = await asyncio.to_thread(run_command, environment, "check")
    assert f"{place.verdicts}-value gets its schema at the start" in before.stdout, before.stderr
    with running(place, tmp_path / "log") as run:
        await asyncio.to_thread(run.wait_for, "ready")
        done = await asyncio.to_thread(run_command, environment, "round-trip", place.posts)
        assert orjson.loads(done.stdout)["source"]["topic"] == place.posts, done.stderr
        assert run.end() == 0, run.tail()
    after = await asyncio.to_thread(run_command, environment, "doctor")
    assert f"{place.verdicts}-value has schema id 1" in after.stdout, after.stderr
    registry.stop()
    refused = await asyncio.to_thread(run_command, environment, "run")
    assert refused.returncode == 3
    assert "cannot be reached: connection refused; check registry.url" in refused.stderr
