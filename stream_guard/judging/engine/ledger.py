"""Records every request that a supervised engine owes, from its submission until it is delivered or cancelled. Pure.

The engine holds a window of the requests at a time. After its death, the requests in the window are suspects. The next
engine gets nothing else until each suspect is judged or rejected. No judgement is delivered twice, and no request is
lost.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from stream_guard.judging.delivery import Pending, by_caller
from stream_guard.judging.engine.suspects import Suspects
from stream_guard.judging.engine.waiting import FirstComeFirstServed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.judging.contract import Judgement, JudgeRequest
    from stream_guard.judging.delivery import Deliver
    from stream_guard.judging.engine.waiting import Waiting


class Culprit(NamedTuple):
    """A request over which engines died, and how many did."""

    pending: Pending
    deaths: int


class Ledger:
    """The requests of one judge.

    Args:
        window: how many requests the engine holds at most.
        deaths_max: after so many deaths, the last one alone in the engine, a request is rejected.
        waiting: says in which order requests enter the engine; by default first come, first served.

    Attributes:
        open: all requests that are owed, by id.
        handed: those of them that the engine holds now, by id.
    """

    def __init__(
        self, window: int, deaths_max: int, waiting: Waiting[Pending] | None = None
    ) -> None:
        self.open: dict[str, Pending] = {}
        self.handed: dict[str, Pending] = {}
        self._window = window
        self._deaths_max = deaths_max
        self._waiting: Waiting[Pending] = FirstComeFirstServed() if waiting is None else waiting
        self._suspects: Suspects[Pending] = Suspects()
        self._deaths: Counter[Pending] = Counter()  # of open requests, after a death alone

    def accept(self, requests: Sequence[JudgeRequest], deliver: Deliver, now_s: float) -> None:
        """Queue requests at this monotonic time in s."""
        accepted = {request.id: Pending(request, deliver) for request in requests}
        self.open.update(accepted)
        self._waiting.add(accepted.values(), now_s)

    def cancel(self, requests: Sequence[JudgeRequest]) -> list[JudgeRequest]:
        """Forget these requests; return those that the engine holds."""
        had: list[JudgeRequest] = []
        for request in requests:
            pending = self.open.pop(request.id, None)
            if pending is None:
                continue
            self._deaths.pop(pending, None)
            if self.handed.pop(request.id, None) is not None:
                had.append(request)
            else:
                self._waiting.discard(request.id)
        if had:
            self._suspects.disturb()
        return had

    def next(self, now_s: float) -> list[Pending]:
        """Return what the engine may have now besides what it holds, and record it as handed; empty for nothing."""
        batch = self._next(now_s)
        self.handed.update((pending.request.id, pending) for pending in batch)
        return batch

    def _next(self, now_s: float) -> list[Pending]:
        if self._suspects or self._suspects.on_trial:
            if self.handed:
                return []  # a trial runs: nothing else may be in the engine
            group = self._suspects.next_group(self._is_open)
            if group:
                return group
        batch: list[Pending] = []
        room = self._window - len(self.handed)
        while len(batch) < room and (pending := self._waiting.next(now_s)) is not None:
            batch.append(pending)
        return batch

    def settle(self, judgements: Sequence[Judgement]) -> dict[Deliver, list[Judgement]]:
        """Close judged requests; return the judgements by caller, without those of requests that were not handed."""
        settled: list[tuple[Pending, Judgement]] = []
        for judgement in judgements:
            pending = self.handed.get(judgement.request.id)
            if pending is not None and pending.request is judgement.request:
                del self.handed[pending.request.id], self.open[pending.request.id]
                if self._deaths:
                    self._deaths.pop(pending, None)
                settled.append((pending, judgement))
        return by_caller(settled)

    def record_death(self) -> Culprit | None:
        """Record that the engine died. Return the request to reject, which is closed, or None."""
        died_with = [*self.handed.values()]
        self.handed.clear()
        self._deaths.update(died_with)
        alone = self._suspects.split(died_with)
        if alone is None:
            return None
        if self._deaths[alone] < self._deaths_max:
            self._suspects.try_again(alone)
            return None
        del self.open[alone.request.id]
        return Culprit(alone, self._deaths.pop(alone))

    def clear(self) -> None:
        """Forget all requests."""
        self.open.clear()
        self.handed.clear()
        self._waiting.clear()
        self._deaths.clear()

    def _is_open(self, pending: Pending) -> bool:
        return self.open.get(pending.request.id) is pending
