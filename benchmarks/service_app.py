"""``python -m benchmarks.service_app``: the real program, whose judge takes a known time for each post.

``SERVICE_PER_S`` is how many posts it judges in a second, one after the other. So a group of them has a known
capacity, which no other load of the machine changes while there are cores to spare.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from stream_guard.judging.engine.scripted import ScriptedJudge
from stream_guard.service.app import App
from stream_guard.settings import load_settings
from stream_guard.telemetry.logs import configure_logs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stream_guard.judging.contract import Judgement, JudgeRequest

_TICK_S: Final = 0.01


class ServiceJudge(ScriptedJudge):
    """Judges so many posts in a second, in the order in which they come.

    Args:
        per_s: posts/s.
    """

    def __init__(self, per_s: float) -> None:
        super().__init__()
        self._per_s = per_s
        self._waiting: deque[tuple[JudgeRequest, Callable[[Sequence[Judgement]], None]]] = deque()
        self._ticking: asyncio.Task[None] | None = None

    def submit(
        self, requests: Sequence[JudgeRequest], deliver: Callable[[Sequence[Judgement]], None]
    ) -> None:
        """Take requests; each waits for its turn."""
        self._waiting.extend((request, deliver) for request in requests)
        if self._ticking is None:
            self._ticking = asyncio.create_task(self._tick(), name="service")

    async def _tick(self) -> None:
        credit, last_s = 0.0, time.monotonic()
        while True:
            await asyncio.sleep(_TICK_S)
            now_s = time.monotonic()
            credit += (now_s - last_s) * self._per_s
            last_s = now_s
            while credit >= 1 and self._waiting:
                request, deliver = self._waiting.popleft()
                super().submit([request], deliver)
                credit -= 1
            if not self._waiting:
                credit = min(credit, 1.0)  # an idle server saves nothing up

    def cancel(self, requests: Sequence[JudgeRequest[Any]]) -> None:
        """Forget these."""
        gone = {request.id for request in requests}
        self._waiting = deque(each for each in self._waiting if each[0].id not in gone)

    def in_flight(self) -> int:
        """Return how many wait."""
        return len(self._waiting)


def main() -> None:
    """Run until a signal."""
    settings = load_settings()
    configure_logs(settings.telemetry)
    judge = ServiceJudge(float(os.environ["SERVICE_PER_S"]))

    async def go() -> None:
        await App(settings, judge=judge).run()

    asyncio.run(go())


if __name__ == "__main__":
    main()
