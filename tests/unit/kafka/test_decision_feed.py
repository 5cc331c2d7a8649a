"""The whole decisions topic is read at the start, also where the brokers are away for a while."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError, KafkaError, TopicAuthorizationFailedError
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from stream_guard.core.errors import BrokerError
from stream_guard.judging.human.table import DecisionTable
from stream_guard.kafka import decision_feed
from stream_guard.kafka.decision_feed import DecisionFeed
from stream_guard.policies.policy import make_policy
from stream_guard.records.decision import encode_decision
from stream_guard.records.post import Post
from stream_guard.settings import Settings
from stream_guard.stream.decision_lane import DecisionReader
from stream_guard.telemetry.metrics import Metrics
from stream_guard.testing import MemoryRecord
from tests.decisions import make_decision

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from stream_guard.judging.human.table import Unread
    from stream_guard.records.decision import Decision

TOPIC = "stream-guard.decisions"
PLACE = TopicPartition(TOPIC, 0)


class Cluster:
    """What each consumer meets in turn: an error, or the records.

    Args:
        errors: those of the first consumers.
        records: of the topic.
        each: how many a poll returns.
    """

    def __init__(
        self, errors: Sequence[Exception], records: Sequence[MemoryRecord], each: int = 100
    ) -> None:
        self.errors = list(errors)
        self.records = records
        self.each = each
        self.consumers: list[Consumer] = []

    def __call__(self, **_: Any) -> Consumer:  # noqa: ANN401 - aiokafka's options
        self.consumers.append(Consumer(self))
        return self.consumers[-1]

    def partitions_for_topic(self, topic: str) -> set[int]:
        return {PLACE.partition} if topic == TOPIC else set()


class Consumer:
    """The slice of aiokafka's consumer that is used."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._client = self
        self._position = 0
        self._assigned: set[TopicPartition] = set()
        self.polls = 0
        self.stopped = False

    async def fetch_all_metadata(self) -> Cluster:
        return self._cluster

    async def start(self) -> None:
        if self._cluster.errors:
            raise self._cluster.errors.pop(0)

    async def stop(self) -> None:
        self.stopped = True

    async def close(self) -> None:
        """Close connections, which it has none of."""

    def assignment(self) -> set[TopicPartition]:
        return self._assigned

    def assign(self, places: Sequence[TopicPartition]) -> None:
        self._assigned = set(places)

    async def beginning_offsets(
        self, places: Sequence[TopicPartition]
    ) -> dict[TopicPartition, int]:
        return dict.fromkeys(places, 0)

    async def end_offsets(self, places: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(places, len(self._cluster.records))

    def seek(self, _place: TopicPartition, position: int) -> None:
        self._position = position

    async def getmany(self, **_: Any) -> Mapping[TopicPartition, Sequence[MemoryRecord]]:  # noqa: ANN401
        await asyncio.sleep(0)
        self.polls += 1
        found = self._cluster.records[self._position : self._position + self._cluster.each]
        self._position += len(found)
        return {PLACE: found}

    async def position(self, _place: TopicPartition) -> int:
        return self._position

    def highwater(self, _place: TopicPartition) -> int:
        return len(self._cluster.records)


def written(*decisions: Decision | tuple[bytes, bytes | None]) -> list[MemoryRecord]:
    """The records of a topic, in order: of decisions, or of a key and a value."""
    records = []
    for offset, one in enumerate(decisions):
        key, value, headers = (*one, []) if isinstance(one, tuple) else encode_decision(one)
        records.append(MemoryRecord(TOPIC, 0, offset, 1 << 41, key, value, headers))
    return records


def feed_of(
    errors: Sequence[Exception],
    monkeypatch: pytest.MonkeyPatch,
    records: Sequence[MemoryRecord] | None = None,
    each: int = 100,
    reset: Callable[[Decision], None] | None = None,
) -> tuple[DecisionFeed, Cluster, DecisionTable, list[Mapping[str, Any]]]:
    async def there(*_: object) -> None:
        return

    cluster = Cluster(errors, written(make_decision()) if records is None else records, each)
    monkeypatch.setattr(decision_feed, "AIOKafkaConsumer", cluster)
    monkeypatch.setattr(decision_feed, "ensure_compacted", there)
    settings = Settings(
        kafka={"retry_backoff_ms": 1},  # type: ignore[arg-type]
        decisions={"start_timeout_s": 30},  # type: ignore[arg-type]
    )
    reader = DecisionReader(settings)
    table, shown = DecisionTable(read=reader.read_later), list[Any]()
    feed = DecisionFeed(
        settings,
        reader,
        table,
        Metrics(CollectorRegistry()),
        show=shown.append,
        reset=reset,
    )
    return feed, cluster, table, shown


async def test_a_start_tries_again_while_the_brokers_are_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    errors = [KafkaConnectionError("away"), TimeoutError(), OSError("reset")]
    feed, cluster, table, shown = feed_of(errors, monkeypatch)
    await feed.load()
    assert len(table) == 1
    assert shown == [{"reading": True, "behind": 1}, {"subjects": 1, "behind": 0}]
    assert [one.stopped for one in cluster.consumers] == [True, True, True, False]
    await feed.close()
    table.close()


def about(content: str, number: int) -> Decision:
    """A decision about a content; the higher number is the later."""
    return make_decision(
        id=f"d-{number}", decided_at=1_700_000_000_000 + number, content={"id": content}
    )


@pytest.mark.parametrize("each", [1, 3, 100])
async def test_a_start_takes_what_is_in_the_topic_in_its_order(
    each: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {name: encode_decision(about(name, 0))[0] for name in ("a", "b", "c")}
    records = written(
        about("a", 2),
        about("b", 1),
        (keys["b"], b"{"),  # the owner of its partition makes it a dead letter
        about("a", 1),  # late
        (keys["b"], None),
        about("c", 1),
        make_decision("breaker_reset"),
        (keys["c"], None),
        about("c", 3),
        make_decision(id="future", decided_at=1 << 45),
    )
    resets = list[Any]()
    feed, _, table, shown = feed_of([], monkeypatch, records, each, resets.append)
    await feed.load()
    stand = {name: table.standing(key) for name, key in keys.items()}
    assert stand == {"a": records[0].value, "b": None, "c": records[8].value}
    assert [one.kind for one in resets] == ["breaker_reset"]
    left = [one["behind"] for one in shown[:-1]]
    assert left == [*range(len(records), 0, -each)]
    assert shown[-1] == {"subjects": 2, "behind": 0}
    await feed.close()
    table.close()


def structured(decision: Decision, offset: int) -> MemoryRecord:
    """The record of a decision that its writer put into a structured CloudEvent."""
    key, value, _ = encode_decision(decision)
    event = {"specversion": "1.0", "id": "1", "source": "/desk", "type": "t"}
    headers = [("content-type", b"application/cloudevents+json; charset=utf-8")]
    body = orjson.dumps({**event, "data": orjson.loads(value)})
    return MemoryRecord(TOPIC, 0, offset, 1 << 41, key, body, headers)


@pytest.mark.parametrize("later", [False, True])
async def test_a_decision_inside_a_structured_cloud_event_answers_a_post(
    monkeypatch: pytest.MonkeyPatch, *, later: bool
) -> None:
    decision = make_decision()
    records = [] if later else [structured(decision, 0)]
    feed, cluster, table, _ = feed_of([], monkeypatch, records)
    await feed.load()
    if later:
        cluster.records = [structured(decision, 0)]
        watching = asyncio.create_task(feed.watch())
        while not len(table):  # noqa: ASYNC110 - nobody sets an event
            await asyncio.sleep(0)
        watching.cancel()
        await asyncio.wait([watching])
    about = decision.about
    assert about is not None
    policy = replace(make_policy("spam", b"# Spam"), id=about.policy.id, sha256=about.policy.sha256)
    post = Post(
        about.content.id, "text", about.content.sha256 or "", 1, tenant=about.content.tenant
    )
    found = table.find(post, policy, 0)
    assert found is not None
    assert found.id == decision.id
    await feed.close()
    table.close()


async def test_a_start_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decision_feed, "PROGRESS_S", -1)
    records = written(about("a", 1), about("b", 1))
    feed, _, table, _ = feed_of([], monkeypatch, records, each=1)
    with capture_logs() as log:
        await feed.load()
    assert [(line["event"], line.get("behind")) for line in log] == [
        ("decisions_reading", 2),
        ("decisions_reading", 1),
        ("decisions_read", None),
    ]
    await feed.close()
    table.close()


async def test_a_start_that_ends_early_leaves_nobody_at_the_table(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    feed, cluster, table, _ = feed_of([], monkeypatch, written(about("a", 1), about("b", 1)), 1)
    loaded = threading.Event()
    stage = table.stage

    def slow(records: Sequence[Unread]) -> None:
        asking.wait(10)
        stage(records)
        loaded.set()

    asking = threading.Event()
    monkeypatch.setattr(table, "stage", slow)
    starting = asyncio.create_task(feed.load())
    while not cluster.consumers or cluster.consumers[0].polls < 2:  # noqa: ASYNC110 - nobody sets an event
        await asyncio.sleep(0)
    starting.cancel()
    await asyncio.sleep(0)
    asking.set()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert loaded.is_set()
    await feed.close()
    table.close()


async def test_a_start_ends_at_an_error_that_no_retry_can_help(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    feed, cluster, table, _ = feed_of([TopicAuthorizationFailedError(TOPIC)], monkeypatch)
    with pytest.raises(BrokerError, match=r"kafka\.decision_topic"):
        await feed.load()
    assert len(cluster.consumers) == 1
    await feed.close()
    table.close()


async def test_a_feed_goes_on_after_a_time_without_any_broker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # aiokafka calls this error neither retriable nor anything else than a KafkaError.
    nobody = KafkaError("Unable to get cluster metadata over all known brokers")
    feed, cluster, table, shown = feed_of([nobody], monkeypatch)
    await feed.load()
    again, asked = asyncio.Event(), 0

    async def metadata(_: Consumer) -> Cluster:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise nobody
        again.set()
        return cluster

    monkeypatch.setattr(Consumer, "fetch_all_metadata", metadata)
    feed._looked_s = -1e9
    watching = asyncio.create_task(feed.watch())
    await again.wait()
    assert not watching.done()
    assert shown[-1] == {"subjects": 1, "behind": 0}
    watching.cancel()
    await asyncio.wait([watching])
    await feed.close()
    table.close()


async def test_rows_that_were_not_written_end_a_start_also_where_the_next_poll_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    records = written(*(make_decision(id=f"d{number}") for number in range(2)))
    feed, _, table, _ = feed_of([], monkeypatch, records, each=1)

    def full(_: object) -> None:
        raise sqlite3.OperationalError("disk is full")

    async def broken(_: Consumer, _place: TopicPartition) -> int:
        raise TopicAuthorizationFailedError

    monkeypatch.setattr(table, "stage", full)
    monkeypatch.setattr(Consumer, "position", broken)
    with pytest.raises(sqlite3.OperationalError):
        await feed._try_to_load()
    await feed.close()
