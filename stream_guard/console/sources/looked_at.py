"""A source that is read while somebody looks at it: the broker has no work for a page that nobody has open.

While it is away it is tried again in any case, so that the notice about it goes once it is back.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Generic, TypeVar

from stream_guard.console.sources.state import Health, SourceWatch
from stream_guard.core.errors import BrokerError, EvidenceError, OperatorError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from stream_guard.console.sources.state import SourceState
    from stream_guard.core.clock import Clock

__all__ = ["LookedAt"]

_T = TypeVar("_T")
_FIRST_WAIT_S = 0.5
"""How long a page waits for a reading before it is shown without one; the reading follows as a part that moves."""


class LookedAt(Generic[_T]):
    """A source.

    Args:
        name: as in ``sources.NAME`` of the catalogue.
        clock: the time.
        interval_s: how often it is read, in s.
        read: reads it. It raises BrokerError, EvidenceError or OperatorError where the source is away.
    """

    def __init__(
        self, name: str, clock: Clock, interval_s: float, read: Callable[[], Awaitable[_T]]
    ) -> None:
        self._watch = SourceWatch(name, clock)
        self._interval_s = interval_s
        self._read = read
        self._asked = asyncio.Event()
        self._was_tried = asyncio.Event()
        self._nobody_looks = True
        self._reading: _T | None = None

    @property
    def state(self) -> SourceState:
        """How it is now."""
        return self._watch.state

    def look(self) -> _T | None:
        """Return the last reading, None before the first, and ask for the next one."""
        self._asked.set()
        return self._reading

    async def look_anew(self) -> _T | None:
        """Return a reading of the last ``interval_s``, or any where a new one takes longer than a page may take."""
        is_new = self._reading is not None and not self._nobody_looks
        if is_new or self.state.health is Health.AWAY:
            return self.look()
        self._was_tried.clear()
        self._asked.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_WAIT_S):
                await self._was_tried.wait()
        return self._reading

    def refuse_if_away(self) -> None:
        """Raise BrokerError where it is away: a client would wait for ``kafka.request_timeout_ms``."""
        if self.state.health is Health.AWAY:
            raise BrokerError(self.state.because)

    async def run(self) -> None:
        """Read it when somebody has asked, until cancelled."""
        while True:
            if self.state.health is not Health.AWAY:
                self._nobody_looks = not self._asked.is_set()
                await self._asked.wait()
                self._nobody_looks = False
            self._asked.clear()
            try:
                self._reading = await self._read()
            except (BrokerError, EvidenceError, OperatorError) as error:
                self._watch.away(str(error))
            else:
                self._watch.fresh()
            self._was_tried.set()
            await asyncio.sleep(self._interval_s)

    async def close(self) -> None:
        """Do nothing: each reading closes what it opens."""
