"""The queue of lanes and tenants: classes, weights, bounded memory, and nothing lost."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_guard.judging.engine.fair_waiting import QUANTUM_TOKENS, FairWaiting
from stream_guard.judging.engine.waiting import FirstComeFirstServed
from stream_guard.policies.lanes import Lane, TenantShare

LIVE = Lane("live")
HISTORY = Lane("history", backfill=True)


def entry(name: str, lane: Lane | None, tenant: str | None = None, tokens: int = 100) -> Any:  # noqa: ANN401 - a stand-in for a request
    post = SimpleNamespace(tenant=tenant)
    return SimpleNamespace(request=SimpleNamespace(id=name, lane=lane, post=post, tokens=tokens))


def fair(**options: Any) -> FairWaiting[Any]:  # noqa: ANN401 - of its constructor
    return FairWaiting(FirstComeFirstServed, **options)


def drain(queue: FairWaiting[Any], now_s: float = 0.0) -> list[str]:
    taken = []
    while (one := queue.next(now_s)) is not None:
        taken.append(one.request.id)
    assert len(queue) == 0
    return taken


def test_without_lanes_the_order_is_that_of_arrival() -> None:
    queue = fair()
    queue.add([entry(str(number), None, f"t{number % 3}") for number in range(20)], 0)
    assert drain(queue) == [str(number) for number in range(20)]
    assert queue.queues() == 0


def test_live_comes_before_backfill() -> None:
    queue = fair()
    queue.add([entry("old-1", HISTORY), entry("old-2", HISTORY)], 0)
    queue.add([entry("new-1", LIVE), entry("new-2", LIVE)], 0)
    assert drain(queue) == ["new-1", "new-2", "old-1", "old-2"]


def test_lanes_share_by_weight() -> None:
    queue = fair()
    heavy, light = Lane("heavy", weight=4), Lane("light", weight=1)
    queue.add([entry(f"l{n}", light, tokens=64) for n in range(1_000)], 0)
    queue.add([entry(f"h{n}", heavy, tokens=64) for n in range(1_000)], 0)
    first = [queue.next(0).request.id[0] for _ in range(500)]  # type: ignore[union-attr]
    assert first.count("h") == pytest.approx(400, abs=QUANTUM_TOKENS * 5 / 64)


def test_a_noisy_tenant_gets_no_more_than_a_quiet_one() -> None:
    queue = fair()
    queue.add([entry(f"n{n}", LIVE, "noisy") for n in range(5_000)], 0)
    queue.add([entry(f"q{n}", LIVE, "quiet") for n in range(100)], 0)
    first = [queue.next(0).request.id[0] for _ in range(250)]  # type: ignore[union-attr]
    assert first.count("q") == 100


def test_a_named_tenant_has_its_weight() -> None:
    queue = fair()
    lane = Lane("live", tenants={"acme": TenantShare(weight=3)})
    queue.add([entry(f"a{n}", lane, "acme") for n in range(1_000)], 0)
    queue.add([entry(f"o{n}", lane, "other") for n in range(1_000)], 0)
    first = [queue.next(0).request.id[0] for _ in range(400)]  # type: ignore[union-attr]
    assert first.count("a") == pytest.approx(300, abs=4 * QUANTUM_TOKENS / 100)


def test_a_reload_changes_a_weight_of_what_waits() -> None:
    queue = fair()
    queue.add([entry(f"a{n}", Lane("a"), tokens=512) for n in range(500)], 0)
    queue.add([entry(f"b{n}", Lane("b"), tokens=512) for n in range(500)], 0)
    queue.add([entry("b-last", Lane("b", weight=9), tokens=512)], 0)
    first = [queue.next(0).request.id[0] for _ in range(200)]  # type: ignore[union-attr]
    assert first.count("b") == pytest.approx(180, abs=20)


def test_a_reload_changes_a_tenants_weight_while_it_waits() -> None:
    queue = fair()
    queue.add([entry(f"a{n}", LIVE, "acme", tokens=512) for n in range(500)], 0)
    queue.add([entry(f"o{n}", LIVE, "other", tokens=512) for n in range(500)], 0)
    edited = Lane(LIVE.name, tenants={"acme": TenantShare(weight=9)})
    queue.add([entry("a-last", edited, "acme", tokens=512)], 0)
    first = [queue.next(0).request.id[0] for _ in range(200)]  # type: ignore[union-attr]
    assert first.count("a") == pytest.approx(180, abs=20)


def test_requests_without_a_lane_and_with_one_take_turns_after_a_reload() -> None:
    queue = fair()
    queue.add([entry(f"before-{n}", None) for n in range(3)], 0)
    queue.add([entry(f"after-{n}", LIVE) for n in range(3)], 0)
    taken = [name.partition("-")[0] for name in drain(queue)]
    assert taken == ["after", "before"] * 3


def test_what_is_cancelled_does_not_come() -> None:
    queue = fair()
    queue.add([entry("a", LIVE, "x"), entry("b", LIVE, "y"), entry("c", None)], 0)
    queue.discard("a")
    queue.discard("c")
    queue.discard("nobody")
    assert drain(queue) == ["b"]


def test_clear_forgets_everything() -> None:
    queue = fair()
    queue.add([entry("a", LIVE), entry("b", HISTORY), entry("c", None)], 0)
    queue.clear()
    assert len(queue) == 0
    assert queue.next(0) is None


def test_memory_is_bounded_with_a_million_tenants_seen() -> None:
    queue = fair(tenants_max=64)
    queue.add([entry(f"w{n}", LIVE, f"waits-{n}") for n in range(500)], 0)
    most = 0
    # Those that were served are used again: a test that makes a million of them takes most of its time for that.
    spare = [entry("", LIVE) for _ in range(1_001)]
    for thousand in range(1_000):
        coming, spare = spare[:1_000], spare[1_000:]
        for number, one in enumerate(coming):
            one.request.id = f"{thousand}-{number}"
            one.request.post.tenant = f"tenant-{thousand}-{number}"
        queue.add(coming, thousand)
        for _ in coming:
            spare.append(queue.next(thousand))
        most = max(most, queue.queues())
        assert len(queue) == 500
    # As many exact queues as shared ones, and shared ones of the secret before.
    assert most <= 3 * 64
    assert len(drain(queue, 1_000)) == 500
    assert queue.queues() == 0


def test_a_tenant_beyond_the_bound_shares_with_others_and_for_a_time_only() -> None:
    queue = fair(tenants_max=4, rotate_s=10)
    queue.add([entry(f"x{n}", LIVE, f"x{n}") for n in range(4)], 0)
    queue.add([entry(f"first-{n}", LIVE, f"tenant-{n}") for n in range(100)], 0)
    assert queue.queues() <= 8
    queue.add([entry(f"second-{n}", LIVE, f"tenant-{n}") for n in range(100)], 11)
    assert 8 < queue.queues() <= 12
    assert len(drain(queue)) == 204


@given(
    steps=st.lists(
        st.one_of(
            st.tuples(
                st.just("add"),
                st.sampled_from([None, LIVE, HISTORY, Lane("wide", weight=3)]),
                st.sampled_from([None, "a", "b", "c", "d", "e"]),
                st.integers(1, 5_000),
            ),
            st.tuples(st.just("next")),
            st.tuples(st.just("discard"), st.integers(0, 60)),
        ),
        max_size=120,
    )
)
def test_every_request_comes_once_whatever_happens(steps: list[Any]) -> None:
    queue = fair(tenants_max=2)
    added: set[str] = set()
    for number, (what, *rest) in enumerate(steps):
        if what == "add":
            added.add(str(number))
            queue.add([entry(str(number), *rest)], number)
        elif what == "next":
            one = queue.next(number)
            assert (one is None) == (not added)
            if one is not None:
                added.remove(one.request.id)
        else:
            added.discard(str(rest[0]))
            queue.discard(str(rest[0]))
        assert len(queue) == len(added)
    assert set(drain(queue, len(steps))) == added
