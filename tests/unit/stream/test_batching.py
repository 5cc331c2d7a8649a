"""Micro-batches: by size, by age, one policy each."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stream_guard.judging.contract import JudgeRequest
from stream_guard.policies.policy import make_policy
from stream_guard.records.post import Post
from stream_guard.stream.batching import Batcher

POLICIES = {name: make_policy(name, name.encode()) for name in ("a", "b", "c")}
POST = Post("1", "t", "0" * 64, 1)


def offer(batcher: Batcher, ids: str, now_s: float = 0.0, policy: str = "a") -> None:
    for name in ids:
        batcher.offer(JudgeRequest(name, POST, POLICIES[policy]), now_s)


def due(batcher: Batcher, now_s: float) -> list[str]:
    return ["".join(request.id for request in batch) for batch in batcher.due(now_s)]


def test_nothing_waits() -> None:
    batcher = Batcher(3, 1)
    assert (due(batcher, 9), batcher.flush(), batcher.next_due_s()) == ([], [], None)


def test_a_full_batch_goes_at_once_and_the_rest_waits_for_its_age() -> None:
    batcher = Batcher(3, 1)
    offer(batcher, "1234567")
    assert due(batcher, 0) == ["123", "456"]
    assert batcher.next_due_s() == 1
    assert due(batcher, 0.99) == []
    assert due(batcher, 1) == ["7"]
    assert batcher.next_due_s() is None


def test_the_oldest_sets_the_age_however_many_follow() -> None:
    batcher = Batcher(10, 1)
    offer(batcher, "1", 5)
    offer(batcher, "2", 5.9)
    assert batcher.next_due_s() == 6
    assert due(batcher, 6) == ["12"]


def test_policies_do_not_mix_and_do_not_wait_for_each_other() -> None:
    batcher = Batcher(2, 1)
    offer(batcher, "1", 0, "a")
    offer(batcher, "23", 0.5, "b")
    assert due(batcher, 0.5) == ["23"]
    assert due(batcher, 1) == ["1"]


def test_a_flush_gives_all_in_batches_that_are_not_too_large() -> None:
    batcher = Batcher(2, 100)
    offer(batcher, "123")
    offer(batcher, "45", 0, "b")
    assert sorted("".join(r.id for r in batch) for batch in batcher.flush()) == ["12", "3", "45"]
    assert batcher.next_due_s() is None


def test_an_age_of_nothing_sends_everything_each_time() -> None:
    batcher = Batcher(64, 0)
    offer(batcher, "12", 7)
    assert due(batcher, 7) == ["12"]


@given(
    steps=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3), st.booleans())),
    size_max=st.integers(1, 4),
    age_max_s=st.integers(0, 4),
)
def test_each_request_comes_out_once_in_order_and_in_time(
    steps: list[tuple[str, int, bool]], size_max: int, age_max_s: int
) -> None:
    batcher = Batcher(size_max, age_max_s)
    now_s, since_s, out = 0, {}, []
    for number, (policy, passed_s, ask) in enumerate(steps):
        now_s += passed_s
        batcher.offer(JudgeRequest(str(number), POST, POLICIES[policy]), now_s)
        since_s[str(number)] = now_s
        if not ask:
            continue
        for batch in batcher.due(now_s):
            assert len(batch) <= size_max
            assert len({request.policy.id for request in batch}) == 1
            out += list(batch)
        late = [n for n, s in since_s.items() if now_s - s >= age_max_s]
        assert set(late) <= {request.id for request in out}
    out += [request for batch in batcher.flush() for request in batch]
    assert len(out) == len({request.id for request in out}) == len(steps)
    for policy in "abc":
        ids = [int(request.id) for request in out if request.policy.id == policy]
        assert ids == sorted(ids)
