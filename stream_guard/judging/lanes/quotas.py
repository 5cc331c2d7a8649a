"""Quotas of tenants, in tokens per second with a burst. Pure: the time is an argument.

A token bucket per tenant, kept as one number: the time at which the bucket is full again. That is the generic cell
rate algorithm (ITU-T I.371). A tenant whose bucket is full is the same as one that was never seen, so only tenants
that used some of theirs lately take memory.
"""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Hashable

    from stream_guard.policies.lanes import Quota

__all__ = ["TENANTS_MAX", "Quotas"]

TENANTS_MAX: Final = 100_000
"""Tenants that one process remembers. A further one replaces the tenant with the oldest last post."""
_SWEEP_MIN: Final = 1_024
"""So many are kept before any is looked at."""


class Quotas:
    """What each tenant has used.

    Args:
        tenants_max: how many are remembered.
    """

    def __init__(self, tenants_max: int = TENANTS_MAX) -> None:
        self._tenants_max = tenants_max
        # By lane and tenant: when the bucket is full again, on the monotonic clock in s. Last used, last kept.
        self._full_at_s: OrderedDict[Hashable, float] = OrderedDict()
        self._sweep_at = min(tenants_max, _SWEEP_MIN)

    def __len__(self) -> int:
        return len(self._full_at_s)

    def take(
        self,
        key: Hashable,
        quota: Quota,
        tokens: float,
        now_s: float,
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
        rate = quota.tokens_per_s
        buckets = self._full_at_s
        before_s = buckets.get(key)
        after_s = (now_s if before_s is None or before_s < now_s else before_s) + tokens / rate
        # A request above the whole burst passes a full bucket: otherwise it would never pass.
        burst = quota.burst_tokens
        wait_s = after_s - now_s - (burst if burst > tokens else tokens) / rate  # noqa: FURB136 - no call for each post
        if wait_s <= 0 or (quota.past == "delay" and wait_s <= delay_s_max):
            buckets[key] = after_s
            if before_s is not None:
                buckets.move_to_end(key)
            elif len(buckets) > self._sweep_at:
                self._sweep(now_s)  # only a new tenant takes memory
        return wait_s if wait_s > 0 else 0.0

    def spend(self, key: Hashable, quota: Quota, tokens: float, now_s: float) -> None:
        """Take tokens without asking, or give some back (below 0)."""
        full_at_s = max(now_s, self._full_at_s.get(key, now_s))
        self._full_at_s[key] = full_at_s + tokens / quota.tokens_per_s
        self._full_at_s.move_to_end(key)
        if len(self._full_at_s) > self._sweep_at:
            self._sweep(now_s)

    def _sweep(self, now_s: float) -> None:
        """Drop the full buckets at the old end, and the oldest where there are too many.

        The next sweep comes when twice as many are kept, so that a new tenant costs the same however many there are.
        """
        buckets = self._full_at_s
        for key in [*itertools.takewhile(lambda one: buckets[one] <= now_s, buckets)]:
            del buckets[key]
        while len(buckets) > self._tenants_max:
            buckets.popitem(last=False)
        self._sweep_at = min(self._tenants_max, max(_SWEEP_MIN, 2 * len(buckets)))
