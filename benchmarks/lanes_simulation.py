"""Simulates lanes and tenants at one engine, with a manual clock and seeds; no broker, no model, no sleeping.

The queue is the product's own. The engine is a number of slots that each generate tokens at a steady rate, so a
request occupies its slot for as long as its tokens take. Arrivals are Poisson, in bursts, or heavy-tailed.
"""

from __future__ import annotations

import heapq
import itertools
import random
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from stream_guard.judging.engine.fair_waiting import QUANTUM_TOKENS, FairWaiting
from stream_guard.judging.engine.waiting import FirstComeFirstServed
from stream_guard.judging.lanes.bounds import gap_bound, wait_bound
from stream_guard.policies.lanes import Lane

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from stream_guard.judging.engine.waiting import Waiting

SLOTS: Final = 64
RATE: Final = 64_000.0
"""Tokens per second of the whole engine."""
COST_MAX: Final = 4_096
"""Tokens of the largest request."""
JAIN_MIN: Final = 0.95
"""Least index over tenants that all want more than their share."""
FLOOD_P99_MAX: Final = 1.2
"""Most that a flood of one tenant may multiply the p99 of the others by."""
SHAPES: Final = ("poisson", "bursts", "heavy tails")
_WEIGHTS: Final = (1.0, 2.0, 4.0, 8.0)
_BACKFILL: Final = 0.3


class Arrival(NamedTuple):
    """One request: when it comes, in s, whose it is, and what it costs, in tokens."""

    at_s: float
    lane: Lane
    tenant: str
    tokens: int


class Served(NamedTuple):
    """One request that was served: when it came, entered a slot and left it, in s."""

    arrival: Arrival
    entered_s: float
    left_s: float

    @property
    def latency_s(self) -> float:
        """From arrival to the end of service, in s."""
        return self.left_s - self.arrival.at_s


def cost(chance: random.Random) -> int:
    """Return the tokens of a request: a bounded Pareto distribution, whose mean is about 250."""
    return min(COST_MAX, round(90 * chance.paretovariate(1.5)))


MEAN_COST: Final = 245.0
"""Mean of :func:`cost`, in tokens."""


def times(chance: random.Random, shape: str, per_s: float, end_s: float) -> Iterator[float]:
    """Yield the times of arrivals of one tenant at this mean rate, until the end."""
    at_s = 0.0
    while True:
        if shape == "bursts":
            at_s += chance.expovariate(per_s / 8)
            count = 8
        elif shape == "heavy tails":
            # Pareto with alpha 1.5 has mean 3; its variance has no bound.
            at_s += chance.paretovariate(1.5) / 3 / per_s
            count = 1
        else:
            at_s += chance.expovariate(per_s)
            count = 1
        if at_s >= end_s:
            return
        for _ in range(count):
            yield at_s


def arrivals(
    chance: random.Random, lane: Lane, loads: dict[str, float], end_s: float
) -> list[Arrival]:
    """Return the arrivals of a lane's tenants. ``loads`` has each tenant's share of the engine."""
    made = []
    for tenant, load in loads.items():
        shape = chance.choice(SHAPES)
        own = random.Random(chance.random())  # noqa: S311 - a simulation
        per_s = load * RATE / MEAN_COST
        made += [Arrival(at_s, lane, tenant, cost(own)) for at_s in times(own, shape, per_s, end_s)]
    return made


def fair(tenants_max: int = 1_024) -> Waiting[Any]:
    """Return the product's queue."""
    return FairWaiting(FirstComeFirstServed, tenants_max=tenants_max)


def serve(
    arrived: Sequence[Arrival],
    queue: Waiting[Any] | None = None,
    *,
    end_s: float = float("inf"),
    entered: Callable[[Arrival, set[str]], None] | None = None,
) -> list[Served]:
    """Serve arrivals until all are served, or until the end.

    Args:
        arrived: in any order.
        queue: which request is next; by default the product's.
        end_s: when to stop, in s.
        entered: called with each request that enters, and the lanes that have work waiting then, its own included.

    Raises:
        AssertionError: a slot was idle while work waited, or a request was served twice or not at all.
    """
    queue = fair() if queue is None else queue
    order = sorted(arrived, key=lambda one: one.at_s)
    ids = itertools.count()
    by_id: dict[str, Arrival] = {}
    waiting: dict[str, int] = {}
    busy: list[tuple[float, int]] = []
    served: list[Served] = []
    at, now_s, token_s = 0, 0.0, SLOTS / RATE
    while at < len(order) or len(queue) or busy:
        coming_s = order[at].at_s if at < len(order) else float("inf")
        now_s = min(coming_s, busy[0][0] if busy else float("inf"))
        if now_s >= end_s:
            return served
        while busy and busy[0][0] <= now_s:
            heapq.heappop(busy)
        while at < len(order) and order[at].at_s <= now_s:
            one = order[at]
            name = str(next(ids))
            by_id[name] = one
            waiting[one.lane.name] = waiting.get(one.lane.name, 0) + 1
            post = SimpleNamespace(tenant=one.tenant)
            request = SimpleNamespace(id=name, lane=one.lane, post=post, tokens=one.tokens)
            queue.add([SimpleNamespace(request=request)], now_s)
            at += 1
        while len(busy) < SLOTS and len(queue):
            taken = queue.next(now_s)
            assert taken is not None, "a slot is idle while work waits"
            one = by_id.pop(taken.request.id)
            if entered is not None:
                entered(one, {name for name, count in waiting.items() if count})
            waiting[one.lane.name] -= 1
            left_s = now_s + one.tokens * token_s
            heapq.heappush(busy, (left_s, at))
            served.append(Served(one, now_s, left_s))
    assert not by_id, "a request was never served"
    return served


def jain(shares: Sequence[float]) -> float:
    """Return Jain's index: 1 where all shares are equal, 1/n where one has everything (Jain, Chiu, Hawe 1984)."""
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 1.0


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value below which this share of the values is."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@dataclass
class Watch:
    """Holds service against the bounds of the docs, while it happens.

    Attributes:
        gap: the most that two lanes with work differed in tokens over weight, as a share of the bound.
        wait: the most that others of its class got while a lane with work got nothing, as a share of the bound.
        wrong_class: requests of the class ``backfill`` that entered while one of the class ``live`` waited.
    """

    lanes: dict[str, Lane]
    gap: float = 0.0
    wait: float = 0.0
    wrong_class: int = 0
    _had: dict[str, float] = field(default_factory=dict)
    _spread: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    _since: dict[str, float] = field(default_factory=dict)

    def entered(self, one: Arrival, waiting: set[str]) -> None:
        """See a request enter."""
        lane = one.lane
        if lane.backfill and any(not self.lanes[name].backfill for name in waiting):
            self.wrong_class += 1
        peers = [n for n in self.lanes if self.lanes[n].backfill == lane.backfill]
        for name in peers:
            if name not in waiting:
                self._since.pop(name, None)
                continue
            self._since.setdefault(name, 0.0)
            if name != lane.name:
                self._since[name] += one.tokens
                self.wait = max(self.wait, self._since[name] / self._wait_bound(name))
        self._since[lane.name] = 0.0
        self._had[lane.name] = self._had.get(lane.name, 0.0) + one.tokens / lane.weight
        for first, second in itertools.combinations(peers, 2):
            if first not in waiting or second not in waiting:
                self._spread.pop((first, second), None)
                continue
            differs = self._had.get(first, 0.0) - self._had.get(second, 0.0)
            seen = self._spread.setdefault((first, second), [differs, differs])
            seen[0], seen[1] = min(seen[0], differs), max(seen[1], differs)
            bound = gap_bound(
                self.lanes[first],
                self.lanes[second],
                quantum=QUANTUM_TOKENS,
                cost_max=COST_MAX,
            )
            self.gap = max(self.gap, (seen[1] - seen[0]) / bound)

    def _wait_bound(self, name: str) -> float:
        lanes = self.lanes
        return wait_bound(lanes[name], lanes.values(), quantum=QUANTUM_TOKENS, cost_max=COST_MAX)


def lanes_history(seed: int, seconds: float = 6.0) -> Watch:
    """Serve several lanes of random weights, tenants and arrivals, at 1.0 to 1.6 times the engine's rate."""
    chance = random.Random(seed)  # noqa: S311 - a simulation
    lanes = [
        Lane(f"lane-{number}", weight=chance.choice(_WEIGHTS), backfill=chance.random() < _BACKFILL)
        for number in range(chance.randint(2, 5))
    ]
    total = chance.uniform(1.0, 1.6)
    arrived: list[Arrival] = []
    for lane in lanes:
        names = [f"{lane.name}-{number}" for number in range(chance.randint(1, 12))]
        share = total / len(lanes) / len(names)
        arrived += arrivals(chance, lane, dict.fromkeys(names, share), seconds)
    watch = Watch({lane.name: lane for lane in lanes})
    count = len(serve(arrived, entered=watch.entered))
    assert count == len(arrived), "every request is served once"
    return watch


def saturated_history(seed: int, seconds: float = 12.0) -> float:
    """Return Jain's index over tenants that always have work waiting; some send three times as much as others.

    Each begins with as much waiting as it can get by the end, so that no gap in its arrivals leaves it without work.
    """
    chance = random.Random(seed)  # noqa: S311 - a simulation
    lane = Lane("all")
    count = chance.randint(4, 24)
    loads = {f"tenant-{n}": chance.uniform(2, 6) / count for n in range(count)}
    backlog = [
        Arrival(0.0, lane, tenant, cost(chance))
        for tenant in loads
        for _ in range(round(seconds * RATE / count / MEAN_COST))
    ]
    had = dict.fromkeys(loads, 0.0)
    for one in serve([*backlog, *arrivals(chance, lane, loads, seconds)], end_s=seconds):
        if one.entered_s > seconds / 10:
            had[one.arrival.tenant] += one.arrival.tokens
    return jain(list(had.values()))


def flood_history(
    seed: int, *, make: Callable[[], Waiting[Any]] = fair, seconds: float = 36.0
) -> tuple[float, float]:
    """Return the p99 of the latency of all tenants but one, in s: before that one sends 100 times as much, and then.

    Costs are heavy-tailed, so the p99 of few requests is mostly chance. Of 12 s, about 2,000 requests, twenty are above
    it, and six that move across it change it by a fifth: by seed, one history in five hundred rose by over 20 %. The
    same seeds with 36 s or 60 s rise by at most 6 %.
    """
    chance = random.Random(seed)  # noqa: S311 - a simulation
    lane = Lane("all")
    count = chance.randint(20, 60)
    load = chance.uniform(0.6, 0.75)
    others = {f"tenant-{n}": load / count for n in range(count)}
    calm = arrivals(chance, lane, others, seconds)
    noisy = random.Random(seed + 1)  # noqa: S311 - a simulation
    p99s = []
    for factor in (1, 100):
        flood = arrivals(noisy, lane, {"noisy": factor * load / count}, seconds)
        served = serve([*calm, *flood], make(), end_s=seconds)
        p99s.append(
            quantile([one.latency_s for one in served if one.arrival.tenant != "noisy"], 0.99)
        )
    return p99s[0], p99s[1]
