"""Records that are not posts are skipped: counted by reason, finished, committed in both modes, and no dead letters."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from prometheus_client import CollectorRegistry

from stream_guard.core.clock import SystemClock
from stream_guard.core.kafka_types import Partition
from stream_guard.judging.engine.scripted import ScriptedJudge
from stream_guard.policies.routing import Routing
from stream_guard.records.post import PostParser
from stream_guard.settings import DeliverySettings, Settings
from stream_guard.stream.exactly_once import TransactionalPublisher
from stream_guard.stream.offsets import PartitionOffsets
from stream_guard.stream.pipeline import Pipeline
from stream_guard.stream.tracing.record_tracer import Tracing
from stream_guard.telemetry.metrics import Metrics
from tests.unit.stream.test_pipeline_routing import FakePublisher, FakeRecord, policy_set

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.policies.policy import PolicySet
    from stream_guard.stream.in_flight import Outgoing

PLACE = Partition("posts", 0)
LIKE = {"kind": "like"}
POST = {"kind": "post", "id": "1", "text": "[violates]"}


class Rig:
    """A pipeline that accepts records of kind post only."""

    def __init__(self, publisher: Any, **post: object) -> None:  # noqa: ANN401 - a fake, or the real one
        settings = Settings(
            kafka={"topics": ["posts"]},  # type: ignore[arg-type]
            post={"where": {"/kind": "post"}, **post},  # type: ignore[arg-type]
            dead_letters={"consecutive_max": 1},  # type: ignore[arg-type]
        )
        self.metrics = Metrics(CollectorRegistry())
        self.offsets = PartitionOffsets(PLACE, 1)
        policies: PolicySet = policy_set(Routing(default=("a",)), "a")
        self.pipeline = Pipeline(
            settings,
            policies,
            parser=PostParser(settings.post),
            judge=ScriptedJudge(),
            publisher=publisher,
            clock=SystemClock(),
            metrics=self.metrics,
            tracing=Tracing(settings.telemetry, group="test", exporter=None, metrics=self.metrics),
        )

    def accept(self, *documents: dict[str, object] | None) -> None:
        first = self.offsets.next_offset or 0
        self.pipeline.accept(
            self.offsets,
            [
                FakeRecord(first + number, None if one is None else orjson.dumps(one), ())
                for number, one in enumerate(documents)
            ],
        )

    def skipped(self, reason: str) -> float | None:
        name = "stream_guard_skipped_records_total"
        return self.metrics.registry.get_sample_value(name, {"reason": reason})


def test_likes_and_null_values_are_counted_finished_and_no_dead_letters() -> None:
    publisher = FakePublisher()
    rig = Rig(publisher)
    rig.accept(LIKE, None, LIKE, LIKE)
    assert rig.skipped("/kind") == 3
    assert rig.skipped("tombstone") == 1
    assert rig.pipeline.finished == 4
    assert rig.pipeline.admission.records == 0
    assert rig.offsets.committable() == 4
    assert publisher.sent == []
    assert rig.pipeline.dead_letters.trip is None


def test_a_skipped_record_does_not_pass_an_unfinished_post() -> None:
    rig = Rig(FakePublisher())
    rig.accept(LIKE, POST, LIKE)
    assert rig.offsets.position() == 1
    rig.pipeline.dispatch(flush=True)
    assert rig.offsets.position() == 3


def test_a_topic_with_settings_of_its_own_is_parsed_by_them() -> None:
    publisher = FakePublisher()
    rig = Rig(publisher, topics={"posts": {"where": {}, "max_key_bytes": 3}})
    rig.accept(LIKE | {"id": "1", "text": "x"})
    assert rig.skipped("/kind") is None
    assert rig.pipeline.admission.records == 1
    rig.pipeline.accept(rig.offsets, [FakeRecord(1, orjson.dumps(POST), (), key=b"long")])
    rig.pipeline.dispatch(flush=True)
    refused = [dict(one.headers).get("sg_message", b"") for one in publisher.sent]
    assert any(b"post.max_key_bytes is 3" in message for message in refused)


class _Session:
    def __init__(self) -> None:
        self.written: list[tuple[int, int]] = []
        self.wrote = asyncio.Event()

    async def write(self, outgoing: Sequence[Outgoing], position: int) -> None:
        self.written.append((len(outgoing), position))
        self.wrote.set()

    async def close(self) -> None:
        return


class _Transactor:
    def __init__(self) -> None:
        self.session = _Session()

    async def claim(self, partition: Partition) -> _Session:
        del partition
        return self.session


@pytest.mark.parametrize("documents", [(LIKE,) * 3, (POST, LIKE, LIKE)])
async def test_exactly_once_commits_the_position_of_skipped_records(
    documents: tuple[dict[str, object], ...],
) -> None:
    transactor = _Transactor()
    publisher = TransactionalPublisher(
        transactor,  # type: ignore[arg-type] # the slice of it that is used
        DeliverySettings(commit_interval_ms=10, transaction_interval_ms=1),
        Metrics(CollectorRegistry()),
        fenced_pause_s=0,
    )
    rig = Rig(publisher)
    await publisher.claim(PLACE, "assigned")
    publisher.begin(rig.offsets)
    rig.accept(*documents)
    rig.pipeline.dispatch(flush=True)
    async with asyncio.timeout(60):
        while rig.offsets.committed != 3:
            await transactor.session.wrote.wait()
            transactor.session.wrote.clear()
            await asyncio.sleep(0)
    assert transactor.session.written[-1][1] == 3
    await publisher.stop()
