"""A partition waits for its schemas: in order, without a dead letter, and without holding up another partition."""

# ruff: noqa: ANN401 - settings as from TOML

from __future__ import annotations

import asyncio
import contextlib
import io
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import fastavro
import orjson
import pytest
from prometheus_client import CollectorRegistry

from stream_guard.core.clock import SystemClock
from stream_guard.core.kafka_types import Partition
from stream_guard.judging.engine.scripted import ScriptedJudge
from stream_guard.kafka.registry.schemas import Schemas
from stream_guard.kafka.registry.source import SchemaSource
from stream_guard.policies.policy import PolicySet, make_policy
from stream_guard.records.post import PostParser
from stream_guard.settings import Settings
from stream_guard.stream.exactly_once import TransactionalPublisher
from stream_guard.telemetry.metrics import Metrics
from stream_guard.testing import MemoryBroker, MemoryPublisher, MemorySource, MemoryTransactor
from tests.hang import HANG_S
from tests.registry import RegistryServer, start_registry
from tests.simulation.assembly import make_poll_loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

SET: Final = PolicySet({"a": make_policy("a", b"# a\nS1: a rule\n")}, {"posts": ("a",)})
FRAMED, PLAIN = Partition("posts", 0), Partition("posts", 1)


def schema(name: str) -> dict[str, Any]:
    return {
        "type": "record",
        "name": name,
        "fields": [{"name": "id", "type": "string"}, {"name": "text", "type": "string"}],
    }


def frame(schema_id: int, post_id: str) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(
        out, fastavro.parse_schema(schema("Any")), {"id": post_id, "text": "t"}
    )
    return b"\0" + schema_id.to_bytes(4) + out.getvalue()


def plain(post_id: str) -> bytes:
    return orjson.dumps({"id": post_id, "text": "t"})


@pytest.fixture
def registry() -> Iterator[RegistryServer]:
    with start_registry() as server:
        yield server


class Running:
    """A consumer in memory that reads a registry over HTTP.

    Attributes:
        shown: the registry's part of ``/healthz``.
    """

    def __init__(self, registry: RegistryServer, **settings: Any) -> None:
        self.settings = Settings(
            registry={"url": registry.url, "timeout_s": 60, **settings},  # type: ignore[arg-type]
            batching={"poll_records_max": 4, "age_max_ms": 1},  # type: ignore[arg-type]
            delivery={"commit_interval_ms": 10},  # type: ignore[arg-type]
        )
        self.broker, self.metrics = MemoryBroker(), Metrics(CollectorRegistry())
        kafka = self.settings.kafka
        self.broker.create_topics("posts", partitions=2)
        self.broker.create_topics(kafka.verdict_topic, kafka.dead_letter_topic)
        self.shown: Mapping[str, Any] = {}

    @contextlib.asynccontextmanager
    async def started(self, mode: str = "at_least_once") -> AsyncIterator[None]:
        schemas = Schemas(self.settings.registry, metrics=self.metrics, show=self._show)
        source = SchemaSource(MemorySource(self.broker, ["posts"], "g"), schemas)
        consumer = make_poll_loop(
            self.settings,
            SET,
            source=source,
            parser=PostParser(self.settings.post, schemas.known),
            judge=ScriptedJudge(),
            publisher=self._publisher(mode),
            clock=SystemClock(),
            metrics=self.metrics,
        )
        await consumer._delivery.publisher.start()
        await source.start(consumer)
        running = asyncio.create_task(consumer.run())
        try:
            yield
        finally:
            consumer.stop()
            await running
            await consumer.drain()
            await source.stop()
            await consumer._delivery.publisher.stop()

    def _publisher(self, mode: str) -> MemoryPublisher | TransactionalPublisher:
        if mode == "at_least_once":
            return MemoryPublisher(self.broker)
        transactor = MemoryTransactor(self.broker, "g")
        return TransactionalPublisher(
            transactor, self.settings.delivery, self.metrics, fenced_pause_s=0
        )

    def _show(self, state: Mapping[str, Any]) -> None:
        self.shown = state

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(HANG_S):
            while not condition():  # noqa: ASYNC110 - nobody could set an event
                await asyncio.sleep(0.005)

    def verdicts(self) -> list[tuple[int, int]]:
        """Return the partition and offset of each verdict, in order."""
        records = self.broker.records(self.settings.kafka.verdict_topic)
        sources = [orjson.loads(record.value or b"")["source"] for record in records]
        return [(source["partition"], source["offset"]) for source in sources]

    def dead(self) -> list[bytes]:
        """Return the error of each dead letter."""
        records = self.broker.records(self.settings.kafka.dead_letter_topic)
        return [b" ".join(value for _, value in record.headers) for record in records]


@pytest.mark.parametrize("mode", ["at_least_once", "exactly_once"])
async def test_a_registry_that_is_down_stalls_its_partition_alone(
    registry: RegistryServer, mode: str
) -> None:
    known = registry.registry.register("posts-value", schema("Post"))
    registry.stop()
    run = Running(registry)
    # The first record needs no schema; behind the held one comes another that needs none.
    for value in (plain("0"), frame(known, "1"), plain("2")):
        run.broker.produce("posts", value, partition=0)
    for number in range(9):
        run.broker.produce("posts", plain(f"p{number}"), partition=1)
    async with run.started(mode):
        await run.until(lambda: len(run.verdicts()) == 10)
        await run.until(lambda: run.broker.committed("g").get(PLAIN) == 9)
        await run.until(lambda: run.broker.committed("g").get(FRAMED) == 1)
        await run.until(lambda: run.shown["error"] is not None)
        assert run.shown["waiting_partitions"] == ["posts/0"]
        assert "refused" in run.shown["error"]
        gauge = "stream_guard_registry_waiting_partitions"
        assert run.metrics.registry.get_sample_value(gauge) == 1
        registry.start()
        await run.until(lambda: run.broker.committed("g").get(FRAMED) == 3)
        await run.until(lambda: run.shown["waiting_partitions"] == [])
        assert run.shown["error"] is None
        assert run.metrics.registry.get_sample_value(gauge) == 0
    assert [offset for partition, offset in run.verdicts() if partition == 0] == [0, 1, 2]
    assert run.dead() == []


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
async def test_an_answer_that_says_nothing_of_the_schema_is_no_dead_letter(
    registry: RegistryServer, status: int
) -> None:
    known = registry.registry.register("posts-value", schema("Post"))
    registry.registry.failing = status
    run = Running(registry)
    run.broker.produce("posts", frame(known, "1"), partition=0)
    async with run.started():
        await run.until(
            lambda: run.shown["error"] is not None and str(status) in run.shown["error"]
        )
        assert run.broker.committed("g").get(FRAMED, 0) == 0
        registry.registry.failing = None
        await run.until(lambda: run.broker.committed("g").get(FRAMED) == 1)
    assert (run.verdicts(), run.dead()) == ([(0, 0)], [])


async def test_an_unknown_id_is_a_dead_letter_that_names_it(registry: RegistryServer) -> None:
    run = Running(registry)
    run.broker.produce("posts", frame(4711, "1"), partition=0)
    run.broker.produce("posts", plain("2"), partition=0)
    async with run.started():
        await run.until(lambda: run.broker.committed("g").get(FRAMED) == 2)
    assert run.verdicts() == [(0, 1)]
    (letter,) = run.dead()
    assert b"schema id 4711" in letter
    assert b"40403" in letter


async def test_a_schema_is_fetched_once(registry: RegistryServer) -> None:
    ids = [registry.registry.register(name, schema(name)) for name in ("A", "B")]
    run = Running(registry)
    for number in range(40):
        run.broker.produce("posts", frame(ids[number % 2], str(number)), partition=number // 2 % 2)
    async with run.started():
        await run.until(lambda: len(run.verdicts()) == 40)
    assert Counter(registry.registry.requests) == {f"GET /schemas/ids/{each}": 1 for each in ids}


async def test_more_schemas_than_fit_in_memory_are_fetched_again(registry: RegistryServer) -> None:
    ids = [registry.registry.register(name, schema(name)) for name in "ABC"]
    run = Running(registry, schemas_max=1)
    for number in range(12):
        run.broker.produce("posts", frame(ids[number % 3], str(number)), partition=number % 2)
    async with run.started():
        await run.until(lambda: len(run.verdicts()) == 12)
        assert run.shown["schemas"] == 1
    for partition in (0, 1):
        assert [at for where, at in run.verdicts() if where == partition] == [*range(6)]
    assert run.dead() == []


async def test_held_records_are_read_again_by_the_next_owner(registry: RegistryServer) -> None:
    known = registry.registry.register("posts-value", schema("Post"))
    registry.stop()
    run = Running(registry)
    for number in range(3):
        run.broker.produce("posts", frame(known, str(number)), partition=0)
    async with run.started():
        await run.until(lambda: run.shown["waiting_partitions"] == ["posts/0"])
        await run.broker.rebalance("g")
        registry.start()
        await run.until(lambda: run.broker.committed("g").get(FRAMED) == 3)
    assert run.verdicts() == [(0, 0), (0, 1), (0, 2)]


async def test_a_stop_does_not_wait_for_the_registry(registry: RegistryServer) -> None:
    registry.stop()
    run = Running(registry)
    run.broker.produce("posts", frame(1, "1"), partition=0)
    async with run.started():
        await run.until(lambda: run.shown["waiting_partitions"] == ["posts/0"])
    assert run.broker.committed("g").get(FRAMED, 0) == 0
    assert (run.verdicts(), run.dead()) == ([], [])
