"""The bench: where authors try and measure drafts. One piece of work at a time, on one engine.

The engine is that of a studio which runs, or one of this process, which starts when it is first needed and ends when
it is idle. Nothing of the service waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

import structlog

from stream_guard.console.sources.state import SourceWatch
from stream_guard.core.errors import EngineError, SettingsError, StreamGuardError
from stream_guard.offline.session import OfflineJudge
from stream_guard.offline.studio.remote_judge import find_studio
from stream_guard.offline.studio.warm_engine import WarmEngine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine

    from stream_guard.console.sources.state import SourceState
    from stream_guard.core.clock import Clock
    from stream_guard.judging.contract import Judge
    from stream_guard.settings import Settings

    Progress = Callable[[str, int, int], None]
    Job = Callable[[Judge, Progress], Awaitable[Any]]

__all__ = ["Bench", "Work"]

_T = TypeVar("_T")

_KEPT_MAX: Final = 100
"""Pieces of work whose results are kept: the latest of each person."""
_LOOK_S: Final = 5.0
"""How often it is asked whether the engine is idle."""
_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Work:
    """One piece of work.

    Attributes:
        who: asked for it.
        policy: the policy's id.
        kind: what is done; names the template that shows the result.
        started_ms: Unix time in ms.
        state: whether it is done. ``failed``: ``because`` says why.
        step, done, total: how far it is.
        because: the error, in words. Untrusted text.
        result: what it gave.
        shown: HTML of the end, once somebody has seen it: a page that is open asks every second.
    """

    who: str
    policy: str
    kind: str
    started_ms: int
    state: Literal["running", "done", "failed"] = "running"
    step: str = ""
    done: int = 0
    total: int = 0
    because: str = ""
    result: Any = None
    shown: str = field(default="", repr=False)
    task: asyncio.Task[None] | None = field(default=None, repr=False)

    def progress(self, step: str, done: int, total: int) -> None:
        """Note how far it is."""
        self.step, self.done, self.total = step, done, total


class Bench:
    """All work of authors that needs an engine.

    Args:
        settings: all sections.
        clock: the time.
    """

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._watch = SourceWatch("bench", clock)
        self._works: dict[str, Work] = {}
        self._steps: set[asyncio.Task[Any]] = set()
        self._own: OfflineJudge | None = None
        # An engine starts only once the one before has ended: two do not fit on one GPU.
        self._changing = asyncio.Lock()
        self._works_well = False
        self._used_s = 0.0

    @property
    def state(self) -> SourceState:
        """How it is: an engine that cannot be started is told to who asked for it, and to nobody else."""
        return self._watch.state

    @property
    def running(self) -> Work | None:
        """The work that is being done."""
        return next((work for work in self._works.values() if work.state == "running"), None)

    def of(self, who: str) -> Work | None:
        """Return a person's latest work."""
        return self._works.get(who)

    def begin(self, who: str, policy: str, kind: str, job: Job) -> Work | None:
        """Begin a piece of work; return None if another one is being done.

        Args:
            who: asks for it.
            policy: the policy's id.
            kind: as in :class:`Work`.
            job: called with the model's judge, which it does not close, and with a function that notes progress.
        """
        if self.running is not None:
            return None
        self._works.pop(who, None)
        work = Work(who, policy, kind, self._clock.wall_ns() // 1_000_000)
        self._works[who] = work
        while len(self._works) > _KEPT_MAX:
            del self._works[next(iter(self._works))]
        work.task = asyncio.create_task(self._do(work, job), name=f"console {kind}")
        return work

    async def stop(self, who: str) -> None:
        """Stop a person's work, if it is being done, and wait for its end."""
        work = self._works.get(who)
        if work is not None and work.task is not None and work.state == "running":
            work.task.cancel()
            await asyncio.gather(work.task, return_exceptions=True)
            # A task that was stopped before its first step has noted nothing. A draft that goes live is not stopped.
            if work.state == "running":
                work.state, work.because = "failed", "stopped"

    async def finish(self, step: Coroutine[Any, Any, _T]) -> _T:
        """Return what a step gives that needs no engine. It goes to its end also if the caller is stopped."""
        task = asyncio.create_task(step)
        self._steps.add(task)
        task.add_done_callback(self._steps.discard)
        return await asyncio.shield(task)

    async def run(self) -> None:
        """End the own engine when it has been idle for long, until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_S)
            await self._end_engine(idle=True)

    async def close(self) -> None:
        """Stop the work and the engine; wait for the end of steps."""
        await asyncio.gather(*self._steps, return_exceptions=True)
        if (work := self.running) is not None:
            await self.stop(work.who)
        await self._end_engine()

    async def _do(self, work: Work, job: Job) -> None:
        limit_s = self._settings.console.work_timeout_s
        try:
            async with asyncio.timeout(limit_s), self._judge() as judge:
                work.result = await job(judge, work.progress)
            work.state, self._works_well = "done", True
        except asyncio.CancelledError:
            work.state, work.because = "failed", "stopped"
            raise
        except EngineError as error:
            work.state, work.because, self._works_well = "failed", str(error), False
        except StreamGuardError as error:
            work.state, work.because = "failed", str(error)
        except TimeoutError:
            work.state, self._works_well = "failed", False
            work.because = f"not done within {limit_s:g} s (console.work_timeout_s)"
        except Exception:  # noqa: BLE001 - it is logged, and the person is told
            work.state, self._works_well = "failed", False
            work.because = "the console has a bug; its log says more"
            _log.exception("console_work_failed", kind=work.kind)
        finally:
            self._used_s = self._clock.monotonic_s()
            if not self._works_well:
                # A start that failed or was stopped cannot be repeated on the same engine.
                await self._end_engine()

    @contextlib.asynccontextmanager
    async def _judge(self) -> AsyncIterator[Judge]:
        """Lend the model's judge. Raises EngineError or SettingsError where there is none."""
        search = await asyncio.to_thread(find_studio, self._settings)
        if search.judge is not None:
            try:
                yield OfflineJudge(self._settings, judge=search.judge).lend()
            finally:
                await search.judge.close()
            return
        if self._settings.console.engine != "own":
            why = f"; a studio runs, and is not used: {search.why_not}" if search.why_not else ""
            message = (
                "no engine judges for the console: start stream-guard studio beside it, or set console.engine to own"
                + why
            )
            raise SettingsError(message)
        async with self._changing:
            if self._own is None:
                self._own = OfflineJudge(self._settings, judge=WarmEngine(self._settings))
            own = self._own
        yield own.lend()

    async def _end_engine(self, *, idle: bool = False) -> None:
        """End the own engine; with ``idle``, only if it has been idle for long."""
        async with self._changing:
            idle_s = self._clock.monotonic_s() - self._used_s
            limit_s = self._settings.console.engine_idle_timeout_s
            if idle and (self.running is not None or idle_s <= limit_s):
                return
            own, self._own, self._works_well = self._own, None, False
            if own is not None:
                await own.__aexit__(None, None, None)
