"""One engine's life: from its start, through its work, to the fault that ended it and its removal."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import structlog

from stream_guard.core.errors import EngineError, EngineHungError, PolicyError
from stream_guard.judging.contract import Judge

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stream_guard.policies.policy import PolicySet

__all__ = ["Fault", "KillableJudge", "Lifetime"]

_log = structlog.get_logger(__name__)
CLOSE_TIMEOUT_S: Final = 30.0
"""A killed engine that is not closed by then is abandoned."""
DEATH_NOTICE_S: Final = 5.0
"""How long it may take to notice a death after a call has failed because of it."""


class KillableJudge(Judge, Protocol):
    """A judge on an engine of its own, which can be ended in any state."""

    async def kill(self) -> None:
        """End the engine's processes at once, also stopped ones. Call ``close`` afterwards."""


class Fault(NamedTuple):
    """Why an engine ended.

    Attributes:
        cause: ``died``, ``hung`` or ``start``; the label of the metric.
        error: the error that was raised or observed.
    """

    cause: str
    error: BaseException


class Lifetime:
    """One engine.

    Args:
        judge: on the engine, not started.
        ended: called once, when the fault becomes known.

    Attributes:
        judge: the same.
        preparing: how many calls of :meth:`prepare` run now.
    """

    def __init__(self, judge: KillableJudge, ended: Callable[[], None]) -> None:
        self.judge = judge
        self.preparing = 0
        self._ended = ended
        self._fault: asyncio.Future[Fault] = asyncio.get_running_loop().create_future()
        self._watching: asyncio.Task[None] | None = None

    async def start(self, policies: PolicySet, older: Sequence[PolicySet] = ()) -> None:
        """Start the engine, ready for these policies and for older ones that are still in flight."""
        await self.judge.start(policies)
        for each in older:
            await self.judge.prepare(each)

    def watch(self) -> None:
        """Watch for its end from now on."""
        self._watching = asyncio.create_task(self._watch(), name="engine death watch")

    async def _watch(self) -> None:
        error = await self.judge.wait_failed()
        # The judge itself can find that its engine hangs.
        cause = "hung" if isinstance(error, EngineHungError) else "died"
        self.end(Fault(cause, error))

    @property
    def is_up(self) -> bool:
        """Whether it is watched and has not ended."""
        return self._watching is not None and not self._fault.done()

    def end(self, fault: Fault) -> None:
        """Record why it ended; the first fault counts."""
        if not self._fault.done():
            self._fault.set_result(fault)
            self._ended()

    async def wait_ended(self) -> Fault:
        """Return why it ended, once it has."""
        return await asyncio.shield(self._fault)

    async def prepare(self, policies: PolicySet) -> bool:
        """Return whether the engine is ready for these policies; False if it ended first.

        Raises:
            PolicyError: the policies cannot be used.
        """
        work = asyncio.ensure_future(self.judge.prepare(policies))
        either: set[asyncio.Future[Any]] = {work, self._fault}
        self.preparing += 1
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                return False
            work.result()
        except EngineError as error:
            # A dying engine raises it before its death is noticed; a live one rejects these policies with it.
            await asyncio.wait({self._fault}, timeout=DEATH_NOTICE_S)
            if not self._fault.done():
                raise PolicyError(str(error)) from error
            return False
        finally:
            self.preparing -= 1
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
        return not self._fault.done()

    async def unwatch(self) -> None:
        """Stop watching for its end."""
        watching, self._watching = self._watching, None
        if watching is not None:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def throw_away(self) -> None:
        """Kill the engine, and free what it holds in this process."""
        await self.unwatch()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self.judge.kill()
                await self.judge.close()
        except TimeoutError:
            _log.warning("engine_close_timed_out", timeout_s=CLOSE_TIMEOUT_S)
