"""Records of one topic wait until they are old enough, and hold nothing else up."""

from __future__ import annotations

from stream_guard.core.kafka_types import Partition
from stream_guard.stream.late_source import LateSource
from stream_guard.testing import ManualClock, MemoryBroker, MemorySource

LATE, POSTS = Partition("late", 0), Partition("posts", 0)


class Listener:
    """Hears of assignments, and does nothing."""

    async def on_assigned(self, partitions: object) -> None:
        """Do nothing."""

    async def on_revoked(self, partitions: object) -> None:
        """Do nothing."""


class Rig:
    """A source of two topics, one of them late."""

    def __init__(self) -> None:
        self.broker = MemoryBroker()
        self.broker.create_topics("late", "posts")
        self.clock = ManualClock()
        self.asked = True
        self.source = LateSource(
            MemorySource(self.broker, ["late", "posts"]),
            "late",
            60,
            self.clock,
            lambda: self.asked,
        )

    async def start(self) -> None:
        await self.source.start(Listener())
        for partition in (LATE, POSTS):
            self.source.seek(partition, 0)

    def write(self, topic: str, age_s: float = 0) -> None:
        now_ms = self.clock.wall_ns() / 1e6
        self.broker.produce(topic, b"x", timestamp_ms=round(now_ms - age_s * 1_000))

    async def poll(self) -> dict[str, list[int]]:
        polled = await self.source.poll([LATE, POSTS], records_max=10, timeout_ms=1)
        return {each.topic: [one.offset for one in records] for each, records in polled.items()}


async def test_a_record_comes_when_it_is_old_enough_and_the_position_waits_for_it() -> None:
    rig = Rig()
    await rig.start()
    for age_s in (70, 61, 10, 80):
        rig.write("late", age_s)
    rig.write("posts")
    assert await rig.poll() == {"late": [0, 1], "posts": [0]}
    assert rig.source.positions()[LATE] == 2
    assert await rig.poll() == {}
    rig.write("posts")
    assert await rig.poll() == {"posts": [1]}
    rig.clock.advance(49)
    assert await rig.poll() == {}
    rig.clock.advance(2)
    # The last one is older than the one before it, and still waits for its turn.
    assert await rig.poll() == {"late": [2, 3]}


async def test_a_record_without_a_timestamp_does_not_wait() -> None:
    rig = Rig()
    await rig.start()
    rig.broker.produce("late", b"x", timestamp_ms=-1)
    assert await rig.poll() == {"late": [0]}


async def test_a_partition_that_is_read_again_is_read_at_once() -> None:
    rig = Rig()
    await rig.start()
    rig.write("late", 10)
    assert await rig.poll() == {}
    rig.clock.advance(55)
    rig.source.seek(LATE, 0)
    assert await rig.poll() == {"late": [0]}


async def test_no_record_comes_before_somebody_has_asked_what_became_of_it() -> None:
    rig = Rig()
    rig.asked = False
    await rig.start()
    rig.write("late", 70)
    rig.write("posts")
    assert await rig.poll() == {"posts": [0]}
    assert rig.source.positions()[LATE] == 0
    rig.asked = True
    assert await rig.poll() == {"late": [0]}
