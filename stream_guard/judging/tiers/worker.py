"""Runs the tiers that take milliseconds in one thread, so that the event loop never waits for them.

Posts that arrive while the thread is busy are screened together, by policy. Screenings never overlap, since a
classifier has threads of its own. A tier's error is reported.
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

SCREENED_MAX: Final = 256
"""Most posts of one screening."""


class HasPost(Protocol):
    """An item to screen; a cancelled one is dropped before its screening."""

    cancelled: bool

    @property
    def post(self) -> Post:
        """The post to screen."""


_Item = TypeVar("_Item", bound=HasPost)


class Screened(NamedTuple, Generic[_Item]):
    """The result of one screening: outcomes in the items' order, and the duration per item in us."""

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
    """One thread, and the items that wait for it.

    Args:
        looked: called with each result, on the event loop.
        failed: called with a tier's error, on the event loop; nothing is screened after it.
    """

    def __init__(
        self,
        screened: Callable[[Screened[_Item]], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._screened = screened
        self._failed = failed
        self._waiting: dict[tuple[str, str, int], _Group[_Item]] = {}
        self._busy = False
        self._executor: ThreadPoolExecutor | None = None

    def put(self, tier: CheapTier, policy: Policy, at: int, items: Sequence[_Item]) -> None:
        """Queue items for a tier. ``at``, the tier's place in its route, is returned with the outcomes."""
        key = (policy.id, policy.sha256, at)
        group = self._waiting.get(key)
        if group is None:
            group = self._waiting[key] = _Group(tier, policy, [])
        group.items.extend(items)
        if not self._busy:
            self._next()

    async def run(self, work: Callable[[], Any]) -> None:
        """Run other work in the thread, between two screenings. Raises what the work raises."""
        await asyncio.get_running_loop().run_in_executor(self._thread(), work)

    def close(self) -> None:
        """End the thread after its current screening, whose result is dropped."""
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
                len(items) > SCREENED_MAX
            ):  # the rest goes to the end of the queue, so that no policy starves
                self._waiting[key] = group._replace(items=items[SCREENED_MAX:])
                items = items[:SCREENED_MAX]
            if items:
                self._begin(group.tier, group.policy, key[2], items)
                return

    def _begin(self, tier: CheapTier, policy: Policy, at: int, items: list[_Item]) -> None:
        posts = [item.post for item in items]

        def screen() -> tuple[Sequence[Outcome], int]:
            began_ns = time.perf_counter_ns()
            outcomes = tier.screen(posts, policy)
            return outcomes, (time.perf_counter_ns() - began_ns) // 1_000

        self._busy = True
        future = asyncio.get_running_loop().run_in_executor(self._thread(), screen)
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
        self._next()  # the thread works while its last result is delivered
        self._screened(Screened(policy, at, items, outcomes, duration_us // len(items)))
