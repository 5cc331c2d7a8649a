"""A post is handed over before a turn of the poll loop that would make it wait longer for company than its limit."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import orjson
from prometheus_client import CollectorRegistry

from stream_guard.policies.policy import PolicySet, make_policy
from stream_guard.records.post import Post, PostParser
from stream_guard.settings import BatchingSettings, Settings
from stream_guard.telemetry.metrics import Metrics
from stream_guard.testing import (
    ManualClock,
    ManualJudge,
    MemoryBroker,
    MemoryPublisher,
    MemorySource,
)
from tests.hang import HANG_S
from tests.simulation.assembly import make_poll_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stream_guard.judging.contract import Judgement, JudgeRequest

SET = PolicySet({"a": make_policy("a", b"# a\nS1: a rule\n")}, {"posts": ("a",)})


class SlowParser(PostParser):
    """Each post takes a while of a clock that nothing else moves."""

    def __init__(self, settings: Settings, clock: ManualClock, takes_s: float) -> None:
        super().__init__(settings.post)
        self.began_s: dict[str, float] = {}
        self._clock = clock
        self._takes_s = takes_s

    def parse(self, value: bytes | None, headers: Sequence[tuple[str, bytes | None]]) -> Post:
        began_s = self._clock.monotonic_s()
        self._clock.advance(self._takes_s)
        post = super().parse(value, headers)
        self.began_s[post.id] = began_s
        return post


class TimedJudge(ManualJudge):
    """Remembers when each post was handed over.

    Attributes:
        handed_s: by the id of the post.
        at_once: whether it answers by itself, as a drain needs, which hands over the last posts.
    """

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock)
        self.handed_s: dict[str, float] = {}
        self.at_once = False
        self._now_s = clock.monotonic_s

    def submit(
        self, requests: Sequence[JudgeRequest], deliver: Callable[[Sequence[Judgement]], None]
    ) -> None:
        self.handed_s.update((request.post.id, self._now_s()) for request in requests)
        super().submit(requests, deliver)
        if self.at_once:
            asyncio.get_running_loop().call_soon(self.answer)


async def waits_ms(takes_ms: float, age_max_ms: int, posts: int) -> list[int]:
    """Return how long each post waited that was handed over, one post a turn."""
    settings = Settings(batching=BatchingSettings(age_max_ms=age_max_ms, poll_records_max=1))
    clock, broker = ManualClock(), MemoryBroker()
    kafka = settings.kafka
    broker.create_topics("posts", kafka.verdict_topic, kafka.dead_letter_topic)
    for number in range(posts):
        broker.produce("posts", orjson.dumps({"id": str(number), "text": "t"}))
    source, metrics = MemorySource(broker, ["posts"], "g"), Metrics(CollectorRegistry())
    parser, judge = SlowParser(settings, clock, takes_ms / 1_000), TimedJudge(clock)
    consumer = make_poll_loop(
        settings,
        SET,
        source=source,
        parser=parser,
        judge=judge,
        publisher=MemoryPublisher(broker),
        clock=clock,
        metrics=metrics,
    )
    await source.start(consumer)
    running = asyncio.create_task(consumer.run())
    async with asyncio.timeout(HANG_S):
        while len(parser.began_s) < posts:  # noqa: ASYNC110 - nobody could set an event
            await asyncio.sleep(0)
        turns = consumer.turns
        while consumer.turns < turns + 2:  # noqa: ASYNC110 - nobody could set an event
            await asyncio.sleep(0)
    waited = [
        round(1_000 * (handed_s - parser.began_s[post]))
        for post, handed_s in judge.handed_s.items()
    ]
    consumer.stop()
    await running
    judge.at_once = True
    judge.answer()
    await consumer.drain()
    await source.stop()
    return waited


async def test_what_would_be_too_old_by_the_next_turn_goes_now() -> None:
    # By the end of a second turn of 12 ms the first one's post would have waited for 24.
    assert await waits_ms(12, 20, 6) == [12] * 6


async def test_short_turns_leave_posts_their_time_for_company() -> None:
    # Turns of 3 ms: the first post goes with all that came before its 20 ms are over.
    assert await waits_ms(3, 20, 14) == [18, 15, 12, 9, 6, 3] * 2
