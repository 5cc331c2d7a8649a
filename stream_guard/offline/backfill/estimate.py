"""Estimates what a backfill will take, from a sample that is really judged, on this machine and without Ray."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from stream_guard.offline.backfill.block_judge import BlockJudge
from stream_guard.offline.backfill.counts import Counts
from stream_guard.offline.backfill.run import cut_source

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_guard.judging.contract import Judge
    from stream_guard.offline.backfill.block_judge import Task
    from stream_guard.offline.backfill.blocks import Block

__all__ = ["Estimate", "estimate"]

_PLACES_MAX: Final = 20
"""The sample is taken at so many places of the source, evenly spaced: history changes over a year."""


@dataclass(slots=True, frozen=True)
class Estimate:
    """What a backfill will take.

    Attributes:
        rows: of the source; of a topic, offsets.
        blocks: how many.
        sample: the counts of the judged rows.
        start_s: how long the engine took to start, in s.
        sample_s: how long the sample took after that, in s.
        actors: how many will work.
        price_per_hour: of one actor, in any currency; None where it is not known.
    """

    rows: int
    blocks: int
    sample: Counts
    start_s: float
    sample_s: float
    actors: int
    price_per_hour: float | None

    def describe(self) -> dict[str, Any]:
        """Return the estimate as plain data for JSON."""
        sample = self.sample
        scale = self.rows / max(1, sample.places)
        posts_per_s = sample.posts / max(self.sample_s, 1e-9)
        posts = round(sample.posts * scale)
        hours = (posts / posts_per_s / self.actors + self.start_s) / 3_600 if posts else 0.0
        cost = None if self.price_per_hour is None else hours * self.actors * self.price_per_hour
        return {
            "rows": self.rows,
            "blocks": self.blocks,
            "sample_rows": sample.places,
            "sample_posts": sample.posts,
            "sample_s": round(self.sample_s, 3),
            "start_s": round(self.start_s, 1),
            "posts_per_s_and_actor": round(posts_per_s, 2),
            "posts": posts,
            "skipped": round(sample.skipped.total() * scale),
            "dead_letters": round(sample.letters * scale),
            "verdicts": round(sample.verdicts * scale),
            "prompt_tokens": round(sample.prompt_tokens * scale),
            "cached_tokens": round(sample.cached_tokens * scale),
            "output_tokens": round(sample.output_tokens * scale),
            "actors": self.actors,
            "hours": round(hours, 4),
            "actor_hours": round(hours * self.actors, 4),
            "price_per_hour": self.price_per_hour,
            "cost": None if cost is None else round(cost, 2),
        }


async def estimate(
    task: Task,
    *,
    block_rows: int,
    sample_rows: int,
    actors: int,
    price_per_hour: float | None,
    show: Callable[[str], None] = lambda _: None,
    inner: Judge | None = None,
) -> Estimate:
    """Judge a sample, and estimate the rest; nothing is written.

    Args:
        task: what would be judged.
        block_rows: most rows of a block.
        sample_rows: how many rows to judge, about.
        actors: how many would work.
        price_per_hour: of one actor, or None.
        show: called with what is being done.
        inner: the model's judge; by default that of the settings.

    Raises:
        OperatorError: the source cannot be used.
        BrokerError: the topic cannot be read.
        EngineError: the engine does not start, or crashes too often.
    """
    show("reading the source")
    blocks = await cut_source(task, block_rows)
    chosen = _spread(blocks, sample_rows)
    each = math.ceil(sample_rows / len(chosen))
    counts = Counts()
    show("starting the engine")
    began_s = time.monotonic()
    async with BlockJudge(task, inner=inner) as judge:
        ready_s = time.monotonic()
        show("judging a sample")
        # At the same time, as in a backfill: an engine that has one post at a time is slow.
        for outcome in await asyncio.gather(*(judge.judge(block, each) for block in chosen)):
            counts.add(outcome.counts)
        done_s = time.monotonic()
    rows = sum(block.rows for block in blocks)
    return Estimate(
        rows, len(blocks), counts, ready_s - began_s, done_s - ready_s, actors, price_per_hour
    )


def _spread(blocks: list[Block], sample_rows: int) -> list[Block]:
    """Return at most ``_PLACES_MAX`` blocks, evenly spaced."""
    count = min(len(blocks), _PLACES_MAX, sample_rows)
    return [blocks[number * len(blocks) // count] for number in range(count)]
