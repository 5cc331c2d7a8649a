"""The whole decisions topic is read at the start, also where the brokers are away for a while."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError, TopicAuthorizationFailedError
from prometheus_client import CollectorRegistry

from stream_guard.core.errors import BrokerError
from stream_guard.judging.human.table import DecisionTable
from stream_guard.kafka import decision_feed
from stream_guard.kafka.decision_feed import DecisionFeed
from stream_guard.records.decision import encode_decision
from stream_guard.settings import Settings
from stream_guard.stream.decision_lane import DecisionReader
from stream_guard.telemetry.metrics import Metrics
from stream_guard.testing import MemoryRecord
from tests.decisions import make_decision

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TOPIC = "stream-guard.decisions"
PLACE = TopicPartition(TOPIC, 0)


class Cluster:
    """What each consumer meets in turn: an error, or the records.

    Args:
        errors: those of the first consumers.
        records: of the topic.
    """

    def __init__(self, errors: Sequence[Exception], records: Sequence[MemoryRecord]) -> None:
        self.errors = list(errors)
        self.records = records
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
        self.stopped = False

    async def fetch_all_metadata(self) -> Cluster:
        return self._cluster

    async def start(self) -> None:
        if self._cluster.errors:
            raise self._cluster.errors.pop(0)

    async def stop(self) -> None:
        self.stopped = True

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
        found = self._cluster.records[self._position :]
        self._position = len(self._cluster.records)
        return {PLACE: found}

    async def position(self, _place: TopicPartition) -> int:
        return self._position

    def highwater(self, _place: TopicPartition) -> int:
        return len(self._cluster.records)


def feed_of(
    errors: Sequence[Exception], monkeypatch: pytest.MonkeyPatch
) -> tuple[DecisionFeed, Cluster, DecisionTable, list[Mapping[str, Any]]]:
    async def there(*_: object) -> None:
        return

    key, value, headers = encode_decision(make_decision())
    cluster = Cluster(errors, [MemoryRecord(TOPIC, 0, 0, 1 << 41, key, value, headers)])
    monkeypatch.setattr(decision_feed, "AIOKafkaConsumer", cluster)
    monkeypatch.setattr(decision_feed, "ensure_compacted", there)
    settings = Settings(
        kafka={"retry_backoff_ms": 1},  # type: ignore[arg-type]
        decisions={"start_timeout_s": 30},  # type: ignore[arg-type]
    )
    table, shown = DecisionTable(), list[Any]()
    feed = DecisionFeed(
        settings,
        DecisionReader(settings),
        table,
        Metrics(CollectorRegistry()),
        show=shown.append,
    )
    return feed, cluster, table, shown


async def test_a_start_tries_again_while_the_brokers_are_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    errors = [KafkaConnectionError("away"), TimeoutError(), OSError("reset")]
    feed, cluster, table, shown = feed_of(errors, monkeypatch)
    await feed.load()
    assert len(table) == 1
    assert shown == [{"subjects": 1, "behind": 0}]
    assert [one.stopped for one in cluster.consumers] == [True, True, True, False]
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
