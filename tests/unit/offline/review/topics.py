"""The topics of a review queue in memory, for tests of all that reads them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import orjson

from stream_guard.core.kafka_types import Partition
from stream_guard.records.decision import encode_decision
from stream_guard.records.review_item import build_review_item
from stream_guard.records.verdict_changes import decided_event, deleted_event
from stream_guard.records.verdict_event import encode_verdict
from stream_guard.settings import KafkaSettings
from stream_guard.testing import MemoryRecord
from tests.decisions import make_decision
from tests.verdicts import FakeRecord, make_verdict

if TYPE_CHECKING:
    import random

    from stream_guard.offline.review.projection import Projection
    from stream_guard.records.decision import Decision

KAFKA = KafkaSettings(review_topic="review")
NOW_MS = 1_700_000_100_000


class Topics:
    """The records of the three topics, with their offsets.

    Args:
        dice: chooses one of two partitions for each record; without them all are in the first.
    """

    def __init__(self, dice: random.Random | None = None) -> None:
        self.records: list[MemoryRecord] = []
        self.ends: Counter[tuple[str, int]] = Counter()
        self._dice = dice

    def write(self, topic: str, value: bytes, key: bytes | None = None) -> MemoryRecord:
        partition = 0 if self._dice is None else self._dice.randrange(2)
        record = MemoryRecord(topic, partition, self.ends[topic, partition], 0, key, value)
        self.ends[topic, partition] += 1
        self.records.append(record)
        return record

    def item(self, offset: int, *, reviews: int = 1, **changes: Any) -> str:  # noqa: ANN401
        verdict = make_verdict(offset=offset, **changes)
        item = build_review_item(verdict, ["sample"], sample_share=1.0, reviews=reviews, text="t")
        self.write("review", orjson.dumps(item), b"k")
        name: str = item["id"]
        return name

    def decide(self, decision: Decision) -> MemoryRecord:
        key, value, _ = encode_decision(decision)
        return self.write(KAFKA.decision_topic, value, key)

    def supersede(self, decision: Decision) -> None:
        assert decision.about is not None
        event = decided_event(
            decision,
            decision.about,
            FakeRecord(),
            stands=True,
            consumed_ms=NOW_MS,
            published_ms=NOW_MS,
        )
        self.write(KAFKA.verdict_topic, encode_verdict(event))

    def delete(self, content_id: str, offset: int, key: bytes | None = None) -> None:
        record = FakeRecord(offset=offset, partition=0, key=key, value=None)
        event = deleted_event(record, content_id, consumed_ms=NOW_MS, published_ms=NOW_MS)
        self.write(KAFKA.verdict_topic, encode_verdict(event))


def decision_about(offset: int, reviewer: str = "r-1", **changes: Any) -> Decision:  # noqa: ANN401
    given = {
        "id": f"d-{offset}-{reviewer}",
        "decided_by": {"id": reviewer, "role": "reviewer"},
        "content": {"id": f"p{offset}"},
        "source": {"offset": offset},
    }
    return make_decision(**{**given, **changes})


def apply(projection: Projection, records: list[MemoryRecord]) -> None:
    read: dict[Partition, int] = {}
    for record in records:
        place = Partition(record.topic, record.partition)
        read[place] = max(read.get(place, 0), record.offset + 1)
    projection.apply(records, read)
