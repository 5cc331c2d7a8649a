"""Runs the tiers that take milliseconds in one thread, so that the event loop never waits for them.

Posts that come while the thread is busy are looked at together, by policy. What it must never do: run two looks at
once (a classifier has threads of its own), or swallow a tier's failure.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stream_guard.judging.tiers.tier import CheapTier, Outcome
    from stream_guard.policies.policy import Policy
    from stream_guard.records.post import Post

LOOKED_AT_MAX: Final = 256
"""Posts of one look."""


class HasPost(Protocol):
    """What waits for a look; a cancelled one is dropped before it."""

    cancelled: bool

    @property
    def post(self) -> Post:
        """What is looked at."""


_Item = TypeVar("_Item", bound=HasPost)


class Looked(NamedTuple, Generic[_Item]):
    """What came of one look: outcomes in the items' order, and its duration in us."""

    policy: Policy
    at: int
    items: Sequence[_Item]
    outcomes: Sequence[Outcome]
    duration_us: int


class _Group(NamedTuple, Generic[_Item]):
    tier: CheapTier
    policy: Policy
    items: list[_Item]


class Worker(Generic[_Item]):
    """One thread, and what waits for it.

    Args:
        looked: told of each look, on the event loop.
        failed: told of a tier's error, on the event loop; nothing is looked at after it.
    """

    def __init__(
        self,
        looked: Callable[[Looked[_Item]], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._looked = looked
        self._failed = failed
        self._waiting: dict[tuple[str, str, int], _Group[_Item]] = {}
        self._busy = False
        self._executor: ThreadPoolExecutor | None = None

    def put(self, tier: CheapTier, policy: Policy, at: int, items: Sequence[_Item]) -> None:
        """Have posts looked at; ``at`` comes back with the outcomes."""
        key = (policy.id, policy.sha256, at)
        group = self._waiting.get(key)
        if group is None:
            group = self._waiting[key] = _Group(tier, policy, [])
        group.items.extend(items)
        if not self._busy:
            self._next()

    async def run(self, work: Callable[[], Any]) -> None:
        """Run something else in the thread, between two looks. Raises what it raises."""
        await asyncio.get_running_loop().run_in_executor(self._thread(), work)

    def close(self) -> None:
        """End the thread, after the look that it is at; nothing is told of it."""
        self._waiting.clear()
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)

    def _thread(self) -> ThreadPoolExecutor:
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, thread_name_prefix="tiers")
        return self._executor

    def _next(self) -> None:
        while self._waiting:
            key, group = next(iter(self._waiting.items()))
            del self._waiting[key]
            items = [item for item in group.items if not item.cancelled]
            if (
                len(items) > LOOKED_AT_MAX
            ):  # to the end of the queue, so that no policy waits for ever
                self._waiting[key] = group._replace(items=items[LOOKED_AT_MAX:])
                items = items[:LOOKED_AT_MAX]
            if items:
                self._begin(group.tier, group.policy, key[2], items)
                return

    def _begin(self, tier: CheapTier, policy: Policy, at: int, items: list[_Item]) -> None:
        posts = [item.post for item in items]

        def look() -> tuple[Sequence[Outcome], int]:
            began_ns = time.perf_counter_ns()
            outcomes = tier.look(posts, policy)
            return outcomes, (time.perf_counter_ns() - began_ns) // 1_000

        self._busy = True
        future = asyncio.get_running_loop().run_in_executor(self._thread(), look)
        future.add_done_callback(lambda done: self._end(done, policy, at, items))

    def _end(
        self,
        done: asyncio.Future[tuple[Sequence[Outcome], int]],
        policy: Policy,
        at: int,
        items: list[_Item],
    ) -> None:
        if done.cancelled():
            return
        error = done.exception()
        if error is not None:
            self._failed(error)
            return
        self._busy = False
        outcomes, duration_us = done.result()
        self._next()  # the thread works on while what it found is handed on
        self._looked(Looked(policy, at, items, outcomes, duration_us // len(items)))
