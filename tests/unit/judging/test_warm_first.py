"""Posts whose policy is cached go first: nothing is lost, nobody waits too long, and the cache is read as if sorted."""

from __future__ import annotations

import heapq
import random
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Final, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_guard.judging.contract import JudgeRequest
from stream_guard.judging.delivery import Pending
from stream_guard.judging.engine.prefixes import CacheRoom, PrefixCache, prefix_key
from stream_guard.judging.engine.waiting import FirstComeFirstServed
from stream_guard.judging.engine.warm_first import WarmFirst
from stream_guard.policies.policy import make_policy
from stream_guard.records.post import Post

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.judging.engine.waiting import Waiting
    from stream_guard.policies.policy import Policy

BLOCK: Final = 16
PREFIX: Final = 37 * BLOCK
OWN: Final = 14 * BLOCK
POLICIES: Final = [
    make_policy(f"p{number}", f"Answer `VIOLATES` or `SAFE`. {number}".encode())
    for number in range(64)
]
ROOMY: Final = 10**9


def pending(number: int, policy: Policy) -> Pending:
    post = Post(id=str(number), text="t", sha256="", text_bytes=1)
    return Pending(JudgeRequest(str(number), post, policy), lambda _: None)


def model(capacity_tokens: int, seqs_max: int = 1) -> PrefixCache:
    """Return a model that knows all policies."""
    cache = PrefixCache()
    cache.reset(CacheRoom(capacity_tokens, BLOCK, seqs_max))
    requests = [pending(0, policy).request for policy in POLICIES]
    cache.expect({prefix_key(request): PREFIX for request in requests}, OWN)
    return cache


def taken(waiting: Waiting[Pending], now_s: float = 0.0) -> list[str]:
    """Take out all that waits."""
    return [entry.request.id for entry in iter(lambda: waiting.next(now_s), None)]


def test_posts_whose_prefix_is_cached_go_before_the_oldest() -> None:
    waiting = WarmFirst[Pending](model(PREFIX + 2 * OWN), 1.0, 10)
    waiting.add([pending(n, POLICIES[n % 2]) for n in range(6)], 0.0)
    assert taken(waiting) == ["0", "2", "4", "1", "3", "5"]


@pytest.mark.parametrize("cache", [PrefixCache(), model(ROOMY)])
def test_where_all_prefixes_fit_it_is_first_come_first_served(cache: PrefixCache) -> None:
    waiting = WarmFirst[Pending](cache, 1.0, 10)
    waiting.add([pending(n, POLICIES[n % 5]) for n in range(40)], 0.0)
    assert taken(waiting) == [str(n) for n in range(40)]


def test_without_a_wait_it_is_first_come_first_served() -> None:
    waiting = WarmFirst[Pending](model(PREFIX + 2 * OWN), 0.0, 10)
    waiting.add([pending(n, POLICIES[n % 2]) for n in range(6)], 0.0)
    assert taken(waiting) == [str(n) for n in range(6)]


def test_once_it_has_waited_long_enough_no_other_goes_before_the_oldest() -> None:
    waiting = WarmFirst[Pending](model(PREFIX + 2 * OWN), 5.0, 10)
    waiting.add([pending(n, POLICIES[n % 2]) for n in range(8)], 0.0)
    order = []
    for now_s in (0.0, 1.0, 5.9, 6.0):
        entry = waiting.next(now_s)
        assert entry is not None
        order.append(entry.request.id)
    # Post 1 is overtaken first at 1 s: at 6 s its wait is over.
    assert order == ["0", "2", "4", "1"]


def test_posts_that_come_again_under_their_id_leave_nothing_behind() -> None:
    """As on each rung of the ladder."""
    cache = model(3 * PREFIX + 100 * OWN)
    low, high, seldom = (prefix_key(pending(0, policy).request) for policy in POLICIES[:3])
    for number in range(500):
        for key in (low, high) if number % 10 else (seldom,):
            cache.enter(key, str(number))
            cache.leave(key, str(number), PREFIX, OWN)
        assert cache.is_warm(seldom)


def test_a_post_that_was_never_completed_and_comes_again_is_there_once() -> None:
    """As the warm-up of a policy after each edit."""
    cache = model(2 * PREFIX + 4 * OWN, seqs_max=8)
    first, *others = (prefix_key(pending(0, policy).request) for policy in POLICIES)
    cache.enter(first, "warm-up")
    cache.enter(others[0], "warm-up")
    for number, key in enumerate(others):
        cache.enter(key, str(number))
        cache.leave(key, str(number), PREFIX, OWN)
    assert not cache.is_warm(first)


def test_a_new_engine_has_an_empty_cache() -> None:
    cache = model(PREFIX + 2 * OWN)
    waiting = WarmFirst[Pending](cache, 1.0, 10)
    waiting.add([pending(n, POLICIES[n % 2]) for n in range(4)], 0.0)
    assert waiting.next(0.0) is not None
    cache.reset(CacheRoom(PREFIX + 2 * OWN, BLOCK, 1))
    assert taken(waiting) == ["1", "3", "2"]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.lists(st.integers(0, 7), max_size=12)),
        st.tuples(st.just("next"), st.integers(1, 8)),
        st.tuples(st.just("cancel"), st.integers(0, 60)),
        st.tuples(st.just("pass"), st.integers(1, 30)),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(steps=STEPS, wait_s=st.integers(0, 20), at_once=st.integers(1, 10))
def test_nothing_is_lost_and_nobody_is_overtaken_for_longer_than_the_wait(
    steps: list[tuple[str, int | list[int]]], wait_s: int, at_once: int
) -> None:
    waiting = WarmFirst[Pending](model(2 * PREFIX + OWN), float(wait_s), at_once)
    now_s, arrived = 0.0, 0
    open_, entered, cancelled = set[int](), list[int](), set[int]()
    first_overtaken_s: dict[int, float] = {}

    def enter() -> None:
        entry = waiting.next(now_s)
        assert (entry is None) == (not open_)
        if entry is None:
            return
        number = int(entry.request.id)
        open_.remove(number)
        entered.append(number)
        for older in (one for one in open_ if one < number):
            assert now_s - first_overtaken_s.setdefault(older, now_s) < wait_s

    for what, amount in steps:
        if isinstance(amount, list):
            waiting.add([pending(arrived + n, POLICIES[p]) for n, p in enumerate(amount)], now_s)
            open_ |= {arrived + n for n in range(len(amount))}
            arrived += len(amount)
        elif what == "next":
            for _ in range(amount):
                enter()
        elif what == "cancel":
            waiting.discard(str(amount))
            cancelled |= open_ & {amount}
            open_ -= {amount}
        else:
            now_s += amount
        assert len(waiting) == len(open_)
    while open_:
        enter()
    assert waiting.next(now_s) is None
    assert sorted([*entered, *cancelled]) == list(range(arrived))


class _Blocks:
    """vLLM's blocks: those of running posts are held, the others are dropped least recently used first."""

    def __init__(self, count: int) -> None:
        self.free: OrderedDict[tuple[str, int], None] = OrderedDict(
            (("", number), None) for number in range(count)
        )
        self.held: dict[tuple[str, int], int] = {}

    def start(self, prefix: Sequence[tuple[str, int]], own: Sequence[tuple[str, int]]) -> int:
        """Hold blocks; return how many of the prefix were there."""
        found = 0
        for block in prefix:
            if block not in self.held and block not in self.free:
                break
            self.free.pop(block, None)
            self.held[block] = self.held.get(block, 0) + 1
            found += 1
        for block in [*prefix[found:], *own]:
            self.free.popitem(last=False)
            self.held[block] = 1
        return found

    def end(self, blocks: Sequence[tuple[str, int]]) -> None:
        """Free blocks, the end of the prompt first."""
        for block in reversed(blocks):
            self.held[block] -= 1
            if not self.held[block]:
                del self.held[block]
                self.free[block] = None


class Simulated(NamedTuple):
    """Of one run: cached share of all prefixes, and posts/s."""

    hits: float
    rate: float


def simulate(
    waiting: Waiting[Pending], cache: PrefixCache | None, drawn: list[int], seqs: int, blocks: int
) -> Simulated:
    """Judge posts of these policies, read one by one, on an engine that runs so many at once."""
    chance = random.Random(7)  # noqa: S311 - a simulation
    pool = _Blocks(blocks)
    unread = deque(pending(number, POLICIES[policy]) for number, policy in enumerate(drawn))
    running: list[tuple[float, int, Pending, list[tuple[str, int]]]] = []
    admitted: deque[Pending] = deque()
    now_s, found = 0.0, 0
    while unread or waiting or admitted or running:
        while unread and len(waiting) < 10_000:
            waiting.add([unread.popleft()], now_s)
        while len(admitted) + len(running) < 2 * seqs and (one := waiting.next(now_s)) is not None:
            admitted.append(one)
        while admitted and len(running) < seqs and len(pool.free) >= (PREFIX + OWN) // BLOCK:
            one = admitted.popleft()
            prefix = [(one.request.policy.id, number) for number in range(PREFIX // BLOCK)]
            own = [(one.request.id, number) for number in range(OWN // BLOCK)]
            found += pool.start(prefix, own)
            ends_s = now_s + chance.uniform(0.25, 0.75)
            heapq.heappush(running, (ends_s, int(one.request.id), one, [*prefix, *own]))
        now_s, _, one, held = heapq.heappop(running)
        pool.end(held)
        if cache is not None:
            cache.leave(prefix_key(one.request), one.request.id, PREFIX, OWN)
    return Simulated(found * BLOCK / (len(drawn) * PREFIX), len(drawn) / now_s)


def test_64_policies_are_read_almost_as_seldom_as_if_their_posts_were_sorted() -> None:
    # A cache for 16 policies beside 128 posts; the wait is the default.
    seqs, blocks = 128, 17 * PREFIX // BLOCK + 128 * OWN // BLOCK
    chance = random.Random(1)  # noqa: S311 - a simulation
    drawn = [chance.randrange(64) for _ in range(5_000)]
    best = simulate(FirstComeFirstServed(), None, sorted(drawn), seqs, blocks)
    plain = simulate(FirstComeFirstServed(), None, drawn, seqs, blocks)
    cache = model(blocks * BLOCK, seqs)
    ours = simulate(WarmFirst(cache, 5.0, 2 * seqs), cache, drawn, seqs, blocks)
    assert plain.hits < 0.8 * best.hits, "else there is nothing to gain"
    assert ours.hits >= 0.9 * best.hits
    assert ours.rate > 1.2 * plain.rate, (ours, plain, best)
