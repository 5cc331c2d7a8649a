"""Deficit round robin: who comes next, what is owed, and the bound on how far shares differ."""

from __future__ import annotations

import itertools
from collections import deque
from typing import TYPE_CHECKING, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_guard.judging.lanes.round_robin import Flow, RoundRobin

if TYPE_CHECKING:
    from collections.abc import Iterable

QUANTUM = 100
COST_MAX = 1_000
KeyT = TypeVar("KeyT", str, int)


def join(
    ring: RoundRobin[KeyT, deque[int]], key: KeyT, costs: Iterable[int], weight: float = 1
) -> Flow[KeyT, deque[int]]:
    flow = ring.join(key, deque(costs), weight)
    flow.waiting = len(flow.queue)
    return flow


def put(flow: Flow[str, deque[int]], cost: int) -> None:
    flow.queue.append(cost)
    flow.waiting += 1


def take(ring: RoundRobin[KeyT, deque[int]]) -> tuple[KeyT, int]:
    flow = ring.turn()
    cost = flow.queue.popleft()
    flow.waiting -= 1
    flow.credit -= cost
    return flow.key, cost


def test_equal_queues_take_turns() -> None:
    ring: RoundRobin[str, deque[int]] = RoundRobin(QUANTUM)
    for name in "abc":
        join(ring, name, [QUANTUM] * 3)
    assert "".join(take(ring)[0] for _ in range(9)) == "abcabcabc"


def test_a_queue_of_weight_three_gets_three_times_as_much() -> None:
    ring: RoundRobin[str, deque[int]] = RoundRobin(QUANTUM)
    join(ring, "heavy", [10] * 1_000, 3)
    join(ring, "light", [10] * 1_000)
    served = [take(ring)[0] for _ in range(800)]
    assert served.count("heavy") == pytest.approx(600, abs=2 * QUANTUM / 10)


def test_a_debt_is_paid_in_later_rounds() -> None:
    ring: RoundRobin[str, deque[int]] = RoundRobin(QUANTUM)
    join(ring, "large", [1_000, 10])
    join(ring, "small", [50] * 100)
    served = [take(ring)[0] for _ in range(25)]
    assert served[0] == "large"
    # 900 tokens of debt are nine rounds of the other's quantum, and a tenth begins before the next turn.
    assert served.index("large", 1) in range(18, 22)


def test_a_debt_stays_when_a_queue_runs_empty_and_comes_back() -> None:
    ring: RoundRobin[str, deque[int]] = RoundRobin(QUANTUM)
    visitor = join(ring, "visitor", [1_000])
    join(ring, "other", [QUANTUM] * 100)
    assert take(ring)[0] == "visitor"
    put(visitor, 1_000)
    assert "visitor" in ring.flows
    served = [take(ring)[0] for _ in range(9)]
    assert served == ["other"] * 9


def test_who_had_nothing_waiting_comes_first() -> None:
    ring: RoundRobin[str, deque[int]] = RoundRobin(QUANTUM)
    join(ring, "noisy", [QUANTUM] * 100)
    join(ring, "noisy too", [QUANTUM] * 100)
    for _ in range(6):
        take(ring)
    join(ring, "quiet", [10])
    assert take(ring) == ("quiet", 10)


def test_who_comes_back_at_once_does_not_come_first_again() -> None:
    ring: RoundRobin[str, deque[int]] = RoundRobin(QUANTUM)
    join(ring, "steady", [QUANTUM] * 100)
    take(ring)
    eager = join(ring, "eager", [QUANTUM])
    assert take(ring)[0] == "eager"
    put(eager, QUANTUM)
    assert take(ring)[0] == "steady"


def test_rounds_in_which_nobody_can_be_served_are_skipped_at_once() -> None:
    ring: RoundRobin[int, deque[int]] = RoundRobin(1)
    for number in range(100):
        join(ring, number, [10**9, 1])
    for _ in range(200):  # walking through a billion rounds would never end
        take(ring)


def test_queues_without_work_leave_the_ring() -> None:
    ring: RoundRobin[int, deque[int]] = RoundRobin(QUANTUM)
    join(ring, -1, [QUANTUM] * 3_000)
    for number in range(1_000):
        join(ring, number, [1])
    for _ in range(1_003):
        take(ring)
    assert len(ring) == 1


@given(
    queues=st.lists(
        st.tuples(
            st.sampled_from([0.5, 1.0, 2.0, 5.0]),
            st.lists(st.integers(1, COST_MAX), min_size=1, max_size=60),
        ),
        min_size=2,
        max_size=5,
    )
)
def test_nothing_is_lost_and_shares_stay_within_the_bound(
    queues: list[tuple[float, list[int]]],
) -> None:
    ring: RoundRobin[int, deque[int]] = RoundRobin(QUANTUM)
    waiting = {number: deque(costs) for number, (_, costs) in enumerate(queues)}
    weights = {number: weight for number, (weight, _) in enumerate(queues)}
    for number, queue in waiting.items():
        join(ring, number, queue, weights[number])
    had = dict.fromkeys(waiting, 0.0)
    served: dict[int, list[int]] = {number: [] for number in waiting}
    spread: dict[tuple[int, int], tuple[float, float]] = {}
    while any(waiting.values()):
        busy = [number for number, queue in waiting.items() if queue]
        number, cost = take(ring)
        waiting[number].popleft()
        served[number].append(cost)
        had[number] += cost / weights[number]
        for pair in itertools.combinations(busy, 2):
            differs = had[pair[0]] - had[pair[1]]
            low, high = spread.get(pair, (0.0, 0.0))
            spread[pair] = low, high = min(low, differs), max(high, differs)
            bound = 2 * QUANTUM + COST_MAX / weights[pair[0]] + COST_MAX / weights[pair[1]]
            assert high - low <= bound
    assert served == {number: costs for number, (_, costs) in enumerate(queues)}
