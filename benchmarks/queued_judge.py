"""The scripted judge behind the engine's queue of lanes and tenants, for what measures their cost."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from stream_guard.judging.engine.fair_waiting import FairWaiting
from stream_guard.judging.engine.scripted import ScriptedJudge
from stream_guard.judging.engine.waiting import FirstComeFirstServed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stream_guard.judging.contract import Judgement, JudgeRequest

__all__ = ["QueuedJudge"]


class QueuedJudge(ScriptedJudge):
    """The scripted judge behind the engine's queue, from which it takes all that waits in each turn of the loop."""

    def __init__(self) -> None:
        super().__init__()
        self._queue: FairWaiting[Any] = FairWaiting(FirstComeFirstServed)
        self._pass_on = super().submit

    def submit(
        self, requests: Sequence[JudgeRequest], deliver: Callable[[Sequence[Judgement]], None]
    ) -> None:
        """Queue requests, and answer them in the queue's order."""
        now_s = time.monotonic()
        self._queue.add([SimpleNamespace(request=one) for one in requests], now_s)
        order = []
        while (entry := self._queue.next(now_s)) is not None:
            order.append(entry.request)
        self._pass_on(order, deliver)
