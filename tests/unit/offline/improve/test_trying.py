"""The posts that an author tries are the newest of the whole topic, and no more of them are in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import orjson

from stream_guard.offline.improve import trying
from stream_guard.offline.improve.trying import latest_posts
from stream_guard.settings import Settings
from stream_guard.testing.memory import MemoryRecord

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest

PARTITIONS, RECORDS, COUNT = 4, 25, 10


class CountedRecord(MemoryRecord):
    """A record that counts how many of its kind are in memory."""

    alive = 0

    def __init__(self, partition: int, offset: int) -> None:
        # The partitions take turns in time.
        number = offset * PARTITIONS + partition
        value = orjson.dumps({"id": str(number), "text": f"post {number}"})
        super().__init__("posts", partition, offset, number, None, value, [])
        CountedRecord.alive += 1

    def __del__(self) -> None:
        CountedRecord.alive -= 1


class CountingReader:
    """A topic whose partitions are read one after the other."""

    alive_max = 0

    def __init__(self, _settings: object) -> None: ...

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def latest(self, _topic: str, count: int) -> int:
        return count

    async def read(self, count: int) -> AsyncIterator[Any]:
        for partition in range(PARTITIONS):
            for offset in range(RECORDS - count, RECORDS):
                yield CountedRecord(partition, offset)
                CountingReader.alive_max = max(CountingReader.alive_max, CountedRecord.alive)


async def test_only_the_newest_of_all_partitions_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trying, "RangeReader", CountingReader)
    posts = await latest_posts(Settings(), "posts", COUNT)
    newest = PARTITIONS * RECORDS
    assert [post.id for post in posts.posts] == [str(n) for n in range(newest - COUNT, newest)]
    # One more is on its way.
    assert COUNT <= CountingReader.alive_max <= COUNT + 1
