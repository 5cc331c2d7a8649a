"""Which request enters the engine next, where several lanes and tenants wait. Pure: the time is an argument.

The class ``live`` comes before ``backfill``. Within a class, lanes share by their weights; within a lane, tenants
share by theirs. Both by deficit round robin over estimated tokens. Each tenant's requests wait in a plain queue.
While no lane is named, there is one such queue and nothing else.
"""

from __future__ import annotations

import itertools
import secrets
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, Generic, TypeAlias

from stream_guard.judging.engine.waiting import PendingT, Waiting
from stream_guard.judging.lanes.round_robin import Flow, RoundRobin

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    from stream_guard.policies.lanes import Lane

__all__ = ["QUANTUM_TOKENS", "FairWaiting"]

QUANTUM_TOKENS: Final = 1_024
"""What a lane or tenant of weight 1 gets in a round: a few posts with their answers."""

_SPARE_MAX: Final = 1_024


_Tenant: TypeAlias = "Flow[Hashable, Waiting[PendingT]]"
"""The requests of one tenant of a lane."""
_Tenants: TypeAlias = "RoundRobin[Hashable, Waiting[PendingT]]"
_Lane: TypeAlias = "Flow[str, _Tenants[PendingT]]"
"""The requests of one lane, by tenant."""


class _Class(Generic[PendingT]):
    """The lanes of one class, ``live`` or ``backfill``.

    Attributes:
        lanes: those that have work or a debt.
        waiting: how many requests wait.
    """

    __slots__ = ("lanes", "waiting")

    def __init__(self) -> None:
        self.lanes: RoundRobin[str, _Tenants[PendingT]] = RoundRobin(QUANTUM_TOKENS)
        self.waiting = 0


class FairWaiting(Waiting[PendingT]):
    """The queue of queues.

    A tenant has a queue of its own while fewer than ``tenants_max`` tenants of its lane wait, and always if the lane
    names it. Any further tenant shares one of as many queues with others, chosen by a hash whose secret changes every
    ``rotate_s``. So memory is bounded, and a tenant that shares with a noisy one does so for a short time (stochastic
    fairness queueing, McKenney 1990).

    Args:
        make_queue: makes an empty queue of one tenant.
        tenants_max: how many tenants of a lane have a queue of their own.
        rotate_s: how long a secret is used, in s.
    """

    def __init__(
        self,
        make_queue: Callable[[], Waiting[PendingT]],
        *,
        tenants_max: int = 1_024,
        rotate_s: float = 600,
    ) -> None:
        self._make_queue = make_queue
        self._tenants_max = tenants_max
        self._rotate_s = rotate_s
        self._plain = make_queue()
        self._plain_used = False  # False only while it is empty
        self._live: _Class[PendingT] = _Class()
        self._backfill: _Class[PendingT] = _Class()
        # By request id: where it waits.
        self._where: dict[str, tuple[_Class[PendingT], _Lane[PendingT], _Tenant[PendingT]]] = {}
        self._spare: list[_Tenant[PendingT]] = []  # empty, to be used again
        self._plain_before = False
        self._secret = b""
        self._secret_until_s = float("-inf")

    def __len__(self) -> int:
        return len(self._plain) + len(self._where)

    def queues(self) -> int:
        """Return how many queues of tenants are kept, also of those that only have a debt."""
        flows = (*self._live.lanes.flows.values(), *self._backfill.lanes.flows.values())
        return sum(len(flow.queue) for flow in flows)

    def add(self, entries: Iterable[PendingT], now_s: float) -> None:
        """Queue requests: those of a lane by lane and tenant, all others in the plain queue."""
        plain = []
        where = self._where
        before: Lane | None = None
        for entry in entries:
            request = entry.request
            lane = request.lane
            if lane is None:
                plain.append(entry)
                continue
            tenant = request.post.tenant
            if lane is not before:
                before = lane
                group = self._backfill if lane.backfill else self._live
                flow = group.lanes.flows.get(lane.name) or group.lanes.join(
                    lane.name, RoundRobin(QUANTUM_TOKENS), lane.weight
                )
                flow.weight = lane.weight  # a reload may have changed it
            # A tenant with a queue of its own keeps it, whatever else waits.
            own = flow.queue.flows.get(tenant)
            if own is None:
                own = self._find_queue(flow.queue, lane, tenant, now_s)
            own.weight = lane.tenant_weight(tenant) if lane.tenants else 1.0
            own.queue.add((entry,), now_s)
            where[request.id] = group, flow, own
            own.waiting += 1
            flow.waiting += 1
            group.waiting += 1
        if plain:
            self._plain.add(plain, now_s)
            self._plain_used = True

    def _find_queue(
        self, tenants: _Tenants[PendingT], lane: Lane, tenant: str | None, now_s: float
    ) -> _Tenant[PendingT]:
        """Return the queue of a tenant that has none of its own: a new one, or one that it shares."""
        if len(tenants.flows) < self._tenants_max or tenant in lane.tenants:
            key: Hashable = tenant
        else:
            key = self._shared_key(tenant, now_s)
            own = tenants.flows.get(key)
            if own is not None:
                return own
        if not self._spare:
            return tenants.join(key, self._make_queue(), 1.0)
        own = self._spare.pop()
        tenants.rejoin(key, own, 1.0)
        return own

    def _shared_key(self, tenant: str | None, now_s: float) -> Hashable:
        """Return the key of a shared queue: its number, with the secret by which it was drawn."""
        if now_s >= self._secret_until_s:
            self._secret, self._secret_until_s = secrets.token_bytes(16), now_s + self._rotate_s
        name = (tenant or "").encode("utf-8", "surrogatepass")
        digest = blake2b(name, digest_size=8, key=self._secret).digest()
        return self._secret, int.from_bytes(digest) % self._tenants_max

    def next(self, now_s: float) -> PendingT | None:
        """Take out the request whose turn it is; None if nothing waits."""
        # Both kinds wait only after a reload that named the first lane, or removed the last: then they take turns.
        if self._plain_used:  # asking a queue for its length would cost every request
            self._plain_used = len(self._plain) > 0
            if self._plain_used and (self._plain_before or not self._where):
                self._plain_before = False
                return self._plain.next(now_s)
        self._plain_before = True
        group = self._live if self._live.waiting else self._backfill
        if not group.waiting:
            return None
        lane = group.lanes.turn()
        tenant = lane.queue.turn()
        entry = tenant.queue.next(now_s)
        assert entry is not None, "a queue whose turn it is has work"
        cost = max(1, entry.request.tokens)  # a turn without cost would not end
        lane.credit -= cost
        tenant.credit -= cost
        del self._where[entry.request.id]
        self._count_out(group, lane, tenant)
        return entry

    def discard(self, request_id: str) -> None:
        """Take out a request; do nothing if it is not in the queue."""
        found = self._where.pop(request_id, None)
        if found is None:
            self._plain.discard(request_id)
            return
        found[2].queue.discard(request_id)
        self._count_out(*found)

    def _count_out(
        self, group: _Class[PendingT], lane: _Lane[PendingT], tenant: _Tenant[PendingT]
    ) -> None:
        """Count a request out. Where nobody else has work, debts are forgiven."""
        tenant.waiting -= 1
        lane.waiting -= 1
        group.waiting -= 1
        if lane.waiting:
            return
        # Some of the empty queues are kept for others.
        room = _SPARE_MAX - len(self._spare)
        self._spare += itertools.islice(lane.queue.flows.values(), room)
        lane.queue.clear()
        if not group.waiting:
            group.lanes.clear()

    def clear(self) -> None:
        """Take out all requests."""
        self._plain.clear()
        self._where.clear()
        self._live, self._backfill = _Class(), _Class()
