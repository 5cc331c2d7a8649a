"""A clock and a judge that a test moves by hand. They never move by themselves."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from stream_guard.judging.contract import Answer, Judgement, Provenance

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from stream_guard.core.errors import RecordError
    from stream_guard.judging.contract import JudgeRequest, Thought
    from stream_guard.policies.policy import PolicySet

_SAFE = Answer("safe", parse_status="not_applicable")
_PROVENANCE = Provenance(tier="manual", model="manual")


class ManualClock:
    """A :class:`stream_guard.core.clock.Clock` that moves only by :meth:`advance`.

    Args:
        unix_ns: its start, Unix time in ns.
    """

    def __init__(self, unix_ns: int = 1_700_000_000_000_000_000) -> None:
        self._unix_ns = unix_ns
        self._monotonic_ns = 0

    def wall_ns(self) -> int:
        """Return Unix time in ns."""
        return self._unix_ns

    def monotonic_s(self) -> float:
        """Return the time since it was made, in s."""
        return self._monotonic_ns / 1e9

    def advance(self, seconds: float) -> None:
        """Let time pass.

        Raises:
            ValueError: time does not go back.
        """
        if seconds < 0:
            raise ValueError(f"time does not go back, not by {-seconds} s either")
        self._unix_ns += round(seconds * 1e9)
        self._monotonic_ns += round(seconds * 1e9)


class ManualJudge:
    """A :class:`stream_guard.judging.contract.Judge` whose answers the test releases, one by one and in any order.

    Attributes:
        waiting: requests taken and not yet answered, in the order in which they came.
        policies: the last argument of :meth:`start` or :meth:`prepare`; None before.
        thoughts: the chain of thought that each answer carries.
    """

    def __init__(self, clock: ManualClock | None = None) -> None:
        self.waiting: list[JudgeRequest] = []
        self.policies: PolicySet | None = None
        self.thoughts: tuple[Thought, ...] = ()
        self._clock = clock or ManualClock()
        self._deliver: dict[str, Callable[[Sequence[Judgement]], None]] = {}
        self._failed = asyncio.Event()
        self._failure: BaseException | None = None

    async def start(self, policies: PolicySet) -> None:
        """Take note of the policies."""
        self.policies = policies

    async def prepare(self, policies: PolicySet) -> None:
        """Take note of the policies."""
        self.policies = policies

    def submit(
        self, requests: Sequence[JudgeRequest], deliver: Callable[[Sequence[Judgement]], None]
    ) -> None:
        """Take requests; each waits for :meth:`answer`."""
        self.waiting.extend(requests)
        self._deliver.update((request.id, deliver) for request in requests)

    def answer(
        self,
        requests: Sequence[JudgeRequest] | None = None,
        answer: Answer = _SAFE,
        *,
        error: RecordError | None = None,
        provenance: Provenance = _PROVENANCE,
    ) -> None:
        """Deliver an outcome for these waiting requests, or all, one list for each who asked.

        Args:
            requests: of :attr:`waiting`.
            answer: the decision for each.
            error: instead of an answer: an error of the posts.
            provenance: how the answer was made.

        Raises:
            KeyError: a request is not waiting.
        """
        by_caller: dict[Callable[[Sequence[Judgement]], None], list[Judgement]] = {}
        now_ns = self._clock.wall_ns()
        for request in [*self.waiting] if requests is None else requests:
            judgement = Judgement(
                request,
                answer=answer if error is None else None,
                error=error,
                thoughts=self.thoughts if error is None else (),
                provenance=provenance,
                started_ns=now_ns,
                finished_ns=now_ns,
            )
            by_caller.setdefault(self._deliver.pop(request.id), []).append(judgement)
            self.waiting.remove(request)
        for deliver, judgements in by_caller.items():
            deliver(judgements)

    def cancel(self, requests: Sequence[JudgeRequest]) -> None:
        """Forget these requests; those that are not waiting are ignored."""
        for request in requests:
            if self._deliver.pop(request.id, None) is not None:
                self.waiting.remove(request)

    def in_flight(self) -> int:
        """Return the number of requests that wait."""
        return len(self.waiting)

    def fail(self, error: BaseException) -> None:
        """Judge no more: :meth:`wait_failed` returns the error, and waiting requests are never delivered."""
        self._failure = error
        self._failed.set()
        self.waiting.clear()
        self._deliver.clear()

    async def wait_failed(self) -> BaseException:
        """Return the error, once there is one."""
        await self._failed.wait()
        assert self._failure is not None, "fail() sets both"
        return self._failure

    def describe(self) -> Mapping[str, str]:
        """Return the facts for the start-up line."""
        return {"engine": "manual", "model": "manual"}

    async def close(self) -> None:
        """Do nothing: there is nothing to free."""
