"""Quotas of tenants, in tokens per second with a burst. Pure: the time is an argument.

A token bucket per tenant, kept as one number: the time at which the bucket is full again. That is the generic cell
rate algorithm (ITU-T I.371). A tenant whose bucket is full is the same as one that was never seen, so only tenants
that used some of theirs lately take memory.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Hashable

    from stream_guard.policies.lanes import Quota

__all__ = ["TENANTS_MAX", "Quotas"]

TENANTS_MAX: Final = 100_000
"""Tenants that one process remembers. A further one replaces the tenant with the oldest last post."""


class Quotas:
    """What each tenant has used.

    Args:
        tenants_max: how many are remembered.
    """

    def __init__(self, tenants_max: int = TENANTS_MAX) -> None:
        self._tenants_max = tenants_max
        # By lane and tenant: when the bucket is full again, on the monotonic clock in s. Last used, last kept.
        self._full_at_s: OrderedDict[Hashable, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at_s)

    def take(
        self,
        key: Hashable,
        quota: Quota,
        tokens: float,
        now_s: float,
        *,
        delay_s_max: float = math.inf,
    ) -> float:
        """Take tokens out of a tenant's bucket; return how long they have to wait, in s.

        Args:
            key: lane and tenant.
            quota: theirs.
            tokens: of the request.
            now_s: monotonic time in s.
            delay_s_max: the longest delay, in s.

        Returns:
            0 within the quota. Past it, how long until the bucket has refilled that far. ``delay`` has then taken the
            tokens, unless that is longer than the longest delay. The other two leave the bucket as it was, because
            nothing or less is spent.
        """
        full_at_s = max(now_s, self._full_at_s.get(key, now_s))
        after_s = full_at_s + tokens / quota.tokens_per_s
        # A request above the whole burst passes a full bucket: otherwise it would never pass.
        allowed_s = max(quota.burst_tokens, tokens) / quota.tokens_per_s
        wait_s = max(0.0, after_s - now_s - allowed_s)
        if wait_s == 0 or (quota.past == "delay" and wait_s <= delay_s_max):
            self._keep(key, after_s, now_s)
        return wait_s

    def spend(self, key: Hashable, quota: Quota, tokens: float, now_s: float) -> None:
        """Take tokens without asking, or give some back (below 0)."""
        full_at_s = max(now_s, self._full_at_s.get(key, now_s))
        self._keep(key, full_at_s + tokens / quota.tokens_per_s, now_s)

    def _keep(self, key: Hashable, full_at_s: float, now_s: float) -> None:
        buckets = self._full_at_s
        before = len(buckets)
        buckets[key] = full_at_s
        if len(buckets) == before:
            buckets.move_to_end(key)
        else:
            self._forget(now_s)  # only a new tenant takes memory

    def _forget(self, now_s: float) -> None:
        """Drop the full buckets at the old end, two for each that came in, and more where there are too many."""
        buckets = self._full_at_s
        for _ in range(2):
            key = next(iter(buckets), None)
            if key is None or buckets[key] > now_s:
                break
            del buckets[key]
        while len(buckets) > self._tenants_max:
            buckets.popitem(last=False)
