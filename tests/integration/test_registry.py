"""Avro from a real broker, with a registry over HTTP that goes away in the middle: nothing is lost, nothing dead."""

from __future__ import annotations

import json
import urllib.request
from typing import TYPE_CHECKING, Any, Final

import orjson
import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from tests.integration.harness import (
    deploy,
    owed_of,
    post,
    produce,
    read,
    run_command,
    running,
    until,
)
from tests.registry import RegistryServer, start_registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from stream_guard.testing import Broker

POLICIES: Final = 2
SECRET: Final = "hunter2-secret"  # noqa: S105 - made up; no output may hold it


@pytest.fixture
def registry() -> Iterator[RegistryServer]:
    with start_registry() as server:
        yield server


def serializer(registry: RegistryServer, name: str) -> Callable[[int], bytes]:
    """Return what writes posts by a schema of this name, as Confluent's clients do."""
    fields = [{"name": each, "type": "string"} for each in ("id", "text")]
    schema = json.dumps({"type": "record", "name": name, "fields": fields})
    avro = AvroSerializer(SchemaRegistryClient({"url": registry.url}), schema)
    context = SerializationContext(name, MessageField.VALUE)
    return lambda number: avro({"id": f"{name}{number}", "text": f"text {number}"}, context)


def health(port: int) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz") as answer:
        report: dict[str, Any] = orjson.loads(answer.read())
    return report


@pytest.mark.parametrize("mode", ["at_least_once", "exactly_once"])
async def test_a_registry_that_goes_away_stalls_and_loses_nothing(
    broker: Broker,
    new_topic: Callable[..., str],
    registry: RegistryServer,
    tmp_path: Path,
    mode: str,
) -> None:
    place = deploy(
        broker.bootstrap_servers,
        new_topic,
        STREAM_GUARD_REGISTRY__URL=registry.url,
        STREAM_GUARD_DELIVERY__MODE=mode,
    )
    first, second = serializer(registry, "A"), serializer(registry, "B")
    before = [first(number) for number in range(10)]
    later = [second(number) for number in range(10)]
    await produce(place.bootstrap, place.posts, before)
    with running(place, tmp_path / "log") as run:
        port = run.wait_for("ready")["http_port"]
        owed = POLICIES * 10
        await read(place.bootstrap, [place.verdicts], lambda got: len(owed_of(got)) >= owed)
        registry.stop()
        # The schema of A is in memory, so only those of B wait, and what lies behind them.
        await produce(place.bootstrap, place.posts, [*later, post(1), post(2)])
        run.wait_for("registry_failed")
        await until(lambda: bool(health(port)["registry"]["waiting_partitions"]))
        state = health(port)
        assert (state["live"], state["ready"]) == (True, True)
        assert "connection refused" in state["registry"]["error"]
        registry.start()
        owed = POLICIES * 22
        records = await read(
            place.bootstrap, [place.verdicts, place.dead], lambda got: len(owed_of(got)) >= owed
        )
        run.wait_for("registry_answers")
        await until(lambda: health(port)["registry"]["waiting_partitions"] == [])
        assert run.end() == 0, run.tail()
    assert {record.topic for record in records} == {place.verdicts}
    judged = {orjson.loads(record.value)["content"]["id"] for record in records}
    assert judged == {f"{name}{n}" for name in "AB" for n in range(10)} | {"p1", "p2"}
    # The group is past all of them: a second run has nothing to do.
    again = run_command(place.environment(), "check")
    assert f"{registry.url} answers and supports AVRO, JSON, PROTOBUF" in again.stdout
    assert len(owed_of(records)) == owed


async def test_check_and_doctor_tell_a_wrong_password_from_a_wrong_url(
    broker: Broker, new_topic: Callable[..., str], registry: RegistryServer
) -> None:
    registry.registry.authorization = "Basic nothing"
    extra = {
        "STREAM_GUARD_REGISTRY__URL": registry.url,
        "STREAM_GUARD_REGISTRY__USERNAME": "guard",
        "STREAM_GUARD_REGISTRY__PASSWORD": SECRET,
    }
    place = deploy(broker.bootstrap_servers, new_topic, **extra)
    for command in ("check", "doctor"):
        done = run_command(place.environment(), command)
        assert done.returncode == 3, done.stdout + done.stderr
        assert "refused the credentials (HTTP 401)" in done.stdout + done.stderr
        assert SECRET not in done.stdout + done.stderr
    registry.stop()
    done = run_command(place.environment(), "check")
    assert "connection refused" in done.stdout + done.stderr
    assert SECRET not in run_command(place.environment(), "config").stdout
