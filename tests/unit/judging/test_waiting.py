"""What waits for the engine: nothing is lost, and nothing that was cancelled enters it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from stream_guard.judging.contract import JudgeRequest
from stream_guard.judging.delivery import Pending
from stream_guard.judging.engine.waiting import FirstComeFirstServed
from stream_guard.policies.policy import make_policy
from stream_guard.records.post import Post

if TYPE_CHECKING:
    from stream_guard.judging.engine.waiting import Waiting

POLICY = make_policy("p", b"Answer `VIOLATES` or `SAFE`.")


def pending(name: str) -> Pending:
    post = Post(id=name, text="t", sha256="", text_bytes=1)
    return Pending(JudgeRequest(name, post, POLICY), lambda _: None)


def drained(waiting: Waiting[Pending], now_s: float = 0.0) -> list[str]:
    """Take out all that waits; return the ids in their order."""
    return [entry.request.id for entry in iter(lambda: waiting.next(now_s), None)]


def test_the_oldest_goes_first_and_an_empty_queue_has_none() -> None:
    waiting = FirstComeFirstServed[Pending]()
    waiting.add([pending("b"), pending("a")], 0.0)
    waiting.add([pending("c")], 1.0)
    assert len(waiting) == 3
    assert drained(waiting) == ["b", "a", "c"]
    assert waiting.next(2.0) is None
    waiting.add([pending("d")], 2.0)
    waiting.clear()
    assert not waiting


@given(count=st.integers(0, 20), cancelled=st.sets(st.integers(0, 25)))
def test_what_is_cancelled_never_enters_and_all_others_do(count: int, cancelled: set[int]) -> None:
    waiting = FirstComeFirstServed[Pending]()
    waiting.add([pending(str(number)) for number in range(count)], 0.0)
    for number in cancelled:
        waiting.discard(str(number))
    assert drained(waiting) == [str(n) for n in range(count) if n not in cancelled]
