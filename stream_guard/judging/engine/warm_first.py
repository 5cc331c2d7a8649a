"""Orders what waits for the engine so that posts whose policy is in its prefix cache go first. Pure.

Where all policies fit into the cache, the order is first come, first served. Otherwise the oldest post goes first if
its prefix is cached, or if no waiting post has a prefix that is. If its prefix is not cached, the posts under the
prefixes in the cache go before it, the most recently used prefix first.

Two limits bound how long a post waits for this:

- Once ``wait_max_s`` have passed since a later post went before it, no other does.
- At most as many posts as the engine takes in ``wait_max_s``, or at once, go before it. Without this limit every post
  would reach the first one, and the order would be first come, first served, only later.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Generic, TypeVar

from stream_guard.judging.delivery import Pending
from stream_guard.judging.engine.prefixes import PrefixKey, prefix_key
from stream_guard.judging.engine.waiting import Waiting

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stream_guard.judging.engine.prefixes import PrefixCache

__all__ = ["WarmFirst"]

PendingT = TypeVar("PendingT", bound=Pending)


class _Entered:
    """Counts what entered the engine within a time, and so estimates what enters in such a time."""

    def __init__(self, within_s: float) -> None:
        self._within_s = within_s
        self._times_s: deque[float] = deque()
        self._since_s = 0.0
        self._at_once = 0

    def record(self, now_s: float) -> None:
        """Count one."""
        if not self._times_s:
            self._since_s, self._at_once = now_s, 0
        self._at_once += now_s == self._since_s
        self._times_s.append(now_s)

    def estimate(self, now_s: float) -> float:
        """Return how many enter within the time."""
        times_s = self._times_s
        while times_s and now_s - times_s[0] > self._within_s:
            times_s.popleft()
        span_s = now_s - self._since_s
        if not times_s or span_s >= self._within_s:
            return len(times_s)
        # The engine was idle before, and took the first ones at once. The others show how fast it works.
        rate = (len(times_s) - self._at_once) / span_s if span_s else 0.0
        return max(len(times_s), rate * self._within_s)


class WarmFirst(Waiting[PendingT], Generic[PendingT]):
    """A queue that prefers cached prefixes.

    Args:
        cache: the model of the engine's cache. Several queues may share it.
        wait_max_s: how long a post waits for others to go before it, in s; 0 for first come, first served.
        at_once: requests that the engine holds.
    """

    def __init__(self, cache: PrefixCache, wait_max_s: float, at_once: int) -> None:
        self._cache = cache
        self._wait_max_s = wait_max_s
        self._at_once = at_once
        self._arrivals = 0
        # By id: the number of its arrival, and the request. The oldest is the first.
        self._entries: OrderedDict[str, tuple[int, PendingT]] = OrderedDict()
        # By prefix the ids that wait and their numbers, oldest first.
        self._groups: dict[PrefixKey, OrderedDict[str, int]] = {}
        self._entered = _Entered(wait_max_s)
        # The posts that entered and were younger than all before them: their numbers and the times.
        self._youngest: deque[tuple[int, float]] = deque()

    def add(self, entries: Iterable[PendingT], now_s: float) -> None:  # noqa: ARG002 - being overtaken has a time, arrival has a number
        """Queue requests."""
        for entry in entries:
            self._arrivals += 1
            request = entry.request
            self._entries[request.id] = (self._arrivals, entry)
            group = self._groups.setdefault(prefix_key(request), OrderedDict())
            group[request.id] = self._arrivals

    def next(self, now_s: float) -> PendingT | None:
        """Take out the request that enters now; None if the queue is empty."""
        if not self._entries:
            return None
        chosen = self._choose(now_s)
        number, entry = self._remove(chosen)
        self._entered.record(now_s)
        if not self._youngest or number > self._youngest[-1][0]:
            self._youngest.append((number, now_s))
        self._cache.enter(prefix_key(entry.request), chosen)
        return entry

    def _choose(self, now_s: float) -> str:
        """Return the id of the oldest request, or of one that may go before it."""
        oldest, (number, entry) = next(iter(self._entries.items()))
        while self._youngest and self._youngest[0][0] < number:
            self._youngest.popleft()
        before = number + max(self._at_once, self._entered.estimate(now_s))
        late = bool(self._youngest) and now_s - self._youngest[0][1] >= self._wait_max_s
        late = late or not self._wait_max_s
        cache = self._cache
        if late or cache.holds_all or cache.is_warm(prefix_key(entry.request)):
            return oldest
        for warm in cache.warm():
            group = self._groups.get(warm)
            if group is not None:
                waiting, arrival = next(iter(group.items()))
                if arrival < before:
                    return waiting
        return oldest

    def discard(self, request_id: str) -> None:
        """Take out a request; do nothing if it is not in the queue."""
        if request_id in self._entries:
            self._remove(request_id)

    def _remove(self, request_id: str) -> tuple[int, PendingT]:
        removed = self._entries.pop(request_id)
        key = prefix_key(removed[1].request)
        group = self._groups[key]
        del group[request_id]
        if not group:
            del self._groups[key]
        return removed

    def clear(self) -> None:
        """Take out all requests."""
        self._entries.clear()
        self._groups.clear()

    def __len__(self) -> int:
        return len(self._entries)
