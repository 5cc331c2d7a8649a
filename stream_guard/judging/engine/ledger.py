"""What a supervised engine owes: every request from when it is taken until it is delivered or cancelled. Pure.

The engine has a window of them at a time. After its death those in it are suspects, and nothing else is given to the
next one until each is judged, or found guilty. What it must never do: hand out a request's judgement twice, or lose a
request.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stream_guard.judging.engine.suspects import Suspects

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stream_guard.judging.contract import Judgement, JudgeRequest


@dataclass(slots=True, eq=False)
class Entry:
    """A request, who waits for it, and in how many deaths of an engine it was there."""

    request: JudgeRequest
    deliver: Callable[[Sequence[Judgement]], None]
    deaths: int = 0


class Ledger:
    """The requests of one judge.

    Args:
        window: how many the engine has at most.
        deaths_max: a suspect that was there in so many deaths, and alone in the last, is guilty.

    Attributes:
        open: by the request's id, all that is owed.
        handed: those of them that the engine has now.
    """

    def __init__(self, window: int, deaths_max: int) -> None:
        self.open: dict[str, Entry] = {}
        self.handed: dict[str, Entry] = {}
        self._window = window
        self._deaths_max = deaths_max
        self._waiting: deque[Entry] = deque()
        self._suspects: Suspects[Entry] = Suspects()

    def take(
        self, requests: Sequence[JudgeRequest], deliver: Callable[[Sequence[Judgement]], None]
    ) -> None:
        """Take requests; they wait."""
        for request in requests:
            entry = self.open[request.id] = Entry(request, deliver)
            self._waiting.append(entry)

    def cancel(self, requests: Sequence[JudgeRequest]) -> list[JudgeRequest]:
        """Forget these; return those that the engine has."""
        had: list[JudgeRequest] = []
        forgotten = 0
        for request in requests:
            if self.open.pop(request.id, None) is None:
                continue
            forgotten += 1
            if self.handed.pop(request.id, None) is not None:
                had.append(request)
        if had:
            self._suspects.disturb()
        if forgotten > len(had):
            self._waiting = deque(filter(self._is_open, self._waiting))
        return had

    def next(self) -> list[Entry]:
        """Note as handed, and return, what the engine may have now besides what it has; empty for nothing."""
        entries = self._next()
        self.handed.update((entry.request.id, entry) for entry in entries)
        return entries

    def _next(self) -> list[Entry]:
        if self._suspects or self._suspects.on_trial:
            if self.handed:
                return []  # a trial runs: nothing else may be in the engine
            group = self._suspects.next_group(self._is_open)
            if group:
                return group
        entries: list[Entry] = []
        room = self._window - len(self.handed)
        while self._waiting and len(entries) < room:
            entry = self._waiting.popleft()
            if self._is_open(entry):
                entries.append(entry)
        return entries

    def settle(
        self, judgements: Sequence[Judgement]
    ) -> dict[Callable[[Sequence[Judgement]], None], list[Judgement]]:
        """Close what was judged; return the judgements by whom they are for, without those of requests not handed."""
        by_caller: dict[Callable[[Sequence[Judgement]], None], list[Judgement]] = {}
        for judgement in judgements:
            entry = self.handed.get(judgement.request.id)
            if entry is not None and entry.request is judgement.request:
                del self.handed[entry.request.id], self.open[entry.request.id]
                by_caller.setdefault(entry.deliver, []).append(judgement)
        return by_caller

    def take_back(self) -> Entry | None:
        """Note that the engine is dead; return the one found guilty, which is closed, or None."""
        died_with = [*self.handed.values()]
        self.handed.clear()
        for entry in died_with:
            entry.deaths += 1
        alone = self._suspects.split(died_with)
        if alone is None:
            return None
        if alone.deaths < self._deaths_max:
            self._suspects.try_again(alone)
            return None
        del self.open[alone.request.id]
        return alone

    def clear(self) -> None:
        """Forget all."""
        self.open.clear()
        self.handed.clear()
        self._waiting.clear()

    def _is_open(self, entry: Entry) -> bool:
        return self.open.get(entry.request.id) is entry
