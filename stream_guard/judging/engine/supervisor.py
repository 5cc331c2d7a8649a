"""Keeps judging while engines come and go: a dead or hanging one is killed and rebuilt, and its posts are tried again.

Every request is kept until it is delivered or cancelled (see ``ledger``). What it must never do: pass on what a dead
engine says, rebuild without end, or end the process for one engine's death.
"""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import structlog

from stream_guard.core.errors import (
    EngineError,
    EngineHungError,
    EngineKilledError,
    OperatorError,
    PolicyError,
    named,
)
from stream_guard.core.inactivity import InactivityTimer
from stream_guard.judging.contract import Judge, Judgement
from stream_guard.judging.engine.endurance import RebuildBudget
from stream_guard.judging.engine.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from stream_guard.core.clock import Clock
    from stream_guard.judging.contract import JudgeRequest
    from stream_guard.policies.policy import PolicySet
    from stream_guard.settings import EngineSettings
    from stream_guard.telemetry.metrics import Metrics

_log = structlog.get_logger(__name__)
TICK_S: Final = 1.0
"""How often we look whether the engine hangs."""
CLOSE_TIMEOUT_S: Final = 30.0
"""A killed engine that is not closed by then is left behind."""
DEATH_NOTICE_S: Final = 5.0
"""How long a death may take to be noticed after a call has failed by it."""


class KillableJudge(Judge, Protocol):
    """A judge on an engine of its own, which can be ended whatever state it is in."""

    async def kill(self) -> None:
        """End the engine's processes at once, stopped ones too; ``close`` comes after."""


class EngineState(NamedTuple):
    """What the supervisor tells of its engine.

    Attributes:
        ready: whether posts are being judged.
        rebuilds: within ``engine.rebuild_window_s``.
        last_fault: what the last engine ended by; None where none has.
    """

    ready: bool
    rebuilds: int
    last_fault: str | None


class _Fault(NamedTuple):
    cause: str  # died, hung, start: the metric's label
    error: BaseException


class SupervisedJudge:
    """A :class:`stream_guard.judging.contract.Judge` round engines that can die.

    Args:
        make: makes an engine's judge, not started.
        settings: the section.
        clock, metrics: the parts.
        changed: told whenever the engine goes down or is ready again; not of the first start, which the caller awaits.
        closed: awaited last by :meth:`close`.
        tick_s: how often we look whether it hangs, in s.
        sleep: how to wait before a rebuild.
    """

    def __init__(
        self,
        make: Callable[[], KillableJudge],
        settings: EngineSettings,
        *,
        clock: Clock,
        metrics: Metrics,
        changed: Callable[[EngineState], None] = lambda _: None,
        closed: Callable[[], Awaitable[None]] | None = None,
        tick_s: float = TICK_S,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._make = make
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._changed = changed
        self._closed = closed
        self._tick_s = tick_s
        self._sleep = sleep
        window = settings.in_flight_requests_max or 2 * settings.max_num_seqs
        self._inner: KillableJudge | None = None
        self._about: Mapping[str, str] = {}
        self._policies: list[
            PolicySet
        ] = []  # the newest last; before it those that may be in flight
        self._ledger = Ledger(window, settings.deaths_per_post_max)
        self._filling = False
        self._preparing = 0
        self._ready = asyncio.Event()  # set, too, once we have failed: nobody is to wait for ever
        self._failed: asyncio.Future[BaseException] | None = None
        self._fault: asyncio.Future[_Fault] | None = None  # of the present engine
        self._deliver: Callable[[Sequence[Judgement]], None]
        self._budget = RebuildBudget(settings)
        self._inactivity = InactivityTimer(tick_s)
        self._last_fault: str | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._watching: asyncio.Task[None] | None = None

    # Life

    async def start(self, policies: PolicySet) -> None:
        """Start the first engine; what it raises is raised, and not tried again: a set-up that never worked."""
        self._failed = asyncio.get_running_loop().create_future()
        self._policies = [policies]
        self._inner = self._make()
        await self._inner.start(policies)
        self._take_up()
        self._tasks = [
            asyncio.create_task(self._supervise(), name="engine supervisor"),
            asyncio.create_task(self._look_regularly(), name="engine hang watch"),
        ]

    async def prepare(self, policies: PolicySet) -> None:
        """Make ready to judge by these as well, by this engine or, should it die, by the next.

        Raises:
            PolicyError: they cannot be judged by, or the engine dies over them each time.
            EngineError: no engine is to be had any more.
        """
        for _ in range(self._settings.deaths_per_post_max):
            await self._ready.wait()
            if self._failure is not None:
                raise self._failure
            if await self._prepared(policies):
                # The last set judges on until it is switched.
                self._policies = [*self._needed_policies(), self._policies[-1], policies]
                return
        message = (
            f"the engine died or hung each of {self._settings.deaths_per_post_max} times that it was made ready for "
            "these policies (engine.deaths_per_post_max)"
        )
        raise PolicyError(message)

    async def _prepared(self, policies: PolicySet) -> bool:
        """Return whether the present engine is ready for these; False where it ended first. Raises PolicyError."""
        inner, fault = self._inner, self._fault
        assert inner is not None, "it is ready"
        assert fault is not None, "it is ready"
        work = asyncio.ensure_future(inner.prepare(policies))
        either: set[asyncio.Future[Any]] = {work, fault}
        self._preparing += 1
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                return False
            work.result()
        except EngineError as error:
            # An engine that dies raises it before its death is noticed; one that lives refuses these policies by it.
            await asyncio.wait({fault}, timeout=DEATH_NOTICE_S)
            if not fault.done():
                raise PolicyError(str(error)) from error
            return False
        finally:
            self._preparing -= 1
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
        return not fault.done()

    async def wait_failed(self) -> BaseException:
        """Return the error, once engines were rebuilt too often."""
        assert self._failed is not None, "start() comes first"
        return await asyncio.shield(self._failed)

    def describe(self) -> Mapping[str, str]:
        """Say what the engine is, or was."""
        return self._about if self._inner is None else self._inner.describe()

    async def close(self) -> None:
        """Drop what is in flight and stop the engine, or what is being built."""
        tasks = [*self._tasks, *([self._watching] if self._watching else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()
        self._ledger.clear()
        if self._inner is not None:
            if not self._ready.is_set() or self._failure is not None:
                await self._inner.kill()
            await self._inner.close()
            self._inner = None
        if self._closed is not None:
            await self._closed()

    # Requests

    def submit(
        self, requests: Sequence[JudgeRequest], deliver: Callable[[Sequence[Judgement]], None]
    ) -> None:
        """Take requests, also while there is no engine."""
        self._ledger.take(requests, deliver)
        self._fill()

    def cancel(self, requests: Sequence[JudgeRequest]) -> None:
        """Forget these, wherever they are; none of them is delivered any more."""
        had = self._ledger.cancel(requests)
        if had and self._inner is not None:
            self._inner.cancel(had)
        self._fill()

    def in_flight(self) -> int:
        """Requests taken and not yet delivered."""
        return len(self._ledger.open)

    def _fill(self) -> None:
        """Give the engine what it may have now. A judge that answers at once calls us again from within."""
        if self._filling:
            return
        self._filling = True
        try:
            while self._is_up():
                idle = not self._ledger.handed
                entries = self._ledger.next()
                if not entries:
                    return
                if idle:
                    self._inactivity.reset()
                assert self._inner is not None, "it is up"
                self._inner.submit([entry.request for entry in entries], self._deliver)
        finally:
            self._filling = False

    def _delivered(
        self, engine: asyncio.Future[_Fault] | None, judgements: Sequence[Judgement]
    ) -> None:
        """Pass on what an engine judged; one that is no longer ours says nothing any more."""
        if engine is not self._fault or not self._is_up():
            return
        by_caller = self._ledger.settle(judgements)
        if by_caller:
            self._inactivity.reset()
            self._budget.judged()
        for deliver, delivered in by_caller.items():
            deliver(delivered)
        self._fill()

    # Death, hanging, and another life

    @property
    def _failure(self) -> BaseException | None:
        return self._failed.result() if self._failed is not None and self._failed.done() else None

    def _is_up(self) -> bool:
        return self._fault is not None and not self._fault.done()

    def look(self) -> None:
        """Look whether the engine hangs; time in which we ourselves did not run does not count against it."""
        busy = self._is_up() and bool(self._ledger.handed or self._preparing)
        silent_s = self._inactivity.measure(self._clock.monotonic_s(), expecting=busy)
        if silent_s > self._settings.hang_s:
            message = (
                f"the engine hangs: it decided nothing for {self._settings.hang_s:g} s (engine.hang_timeout_s) "
                f"of {len(self._ledger.handed)} posts in flight"
            )
            assert self._fault is not None, "it is up"
            self._report(self._fault, _Fault("hung", EngineHungError(message)))

    async def _look_regularly(self) -> None:
        while True:
            await asyncio.sleep(self._tick_s)
            self.look()

    def _report(self, engine: asyncio.Future[_Fault], fault: _Fault) -> None:
        if not engine.done():
            engine.set_result(fault)
            self._ready.clear()

    def _take_up(self) -> None:
        """The engine is ready: give it work, and watch it."""
        inner = self._inner
        assert inner is not None, "it was made"
        self._fault = fault = asyncio.get_running_loop().create_future()
        self._deliver = partial(
            self._delivered, fault
        )  # one for all, so that the judge can group by it
        self._about = inner.describe()
        self._inactivity.reset()

        async def watch() -> None:
            error = await inner.wait_failed()
            hung = isinstance(error, EngineHungError)  # found by the judge itself
            self._report(fault, _Fault("hung" if hung else "died", error))

        self._watching = asyncio.create_task(watch(), name="engine death watch")
        self._ready.set()
        self._fill()

    async def _supervise(self) -> None:
        try:
            while self._failure is None:
                assert self._fault is not None, "an engine is up"
                fault = await self._fault
                self._take_back(fault)
                self._tell(ready=False)
                await self._rebuild(fault)
        except Exception as error:  # noqa: BLE001 - our own fault: the process has to hear of it
            self._fail(error)

    def _take_back(self, fault: _Fault) -> None:
        """Suspect what the engine had in it, and find guilty what was alone in it too often."""
        self._last_fault = str(fault.error)
        _log.error(
            "engine_died",
            cause=fault.cause,
            error=self._last_fault,
            posts_in_it=len(self._ledger.handed),
            in_flight=len(self._ledger.open),
        )
        guilty = self._ledger.take_back()
        if guilty is None:
            return
        request = guilty.request
        _log.error("post_killed_engine", policy=request.policy.id, deaths=guilty.deaths)
        now_ns = self._clock.wall_ns()
        error = EngineKilledError(guilty.deaths)
        guilty.deliver([Judgement(request, error=error, started_ns=now_ns, finished_ns=now_ns)])

    async def _rebuild(self, fault: _Fault) -> None:
        """Return with an engine that is up, or having failed."""
        while True:
            await self._throw_away()
            pause_s = self._spend(fault)
            if pause_s is None:
                return
            await self._sleep(pause_s)
            began_s = self._clock.monotonic_s()
            try:
                await self._start_another()
            except OperatorError as error:
                self._fail(error)
                return
            except Exception as error:  # noqa: BLE001 - whatever an engine fails to start by; it counts
                fault = _Fault("start", error)
                self._last_fault = named(error)
                _log.error("engine_start_failed", error=self._last_fault)
                continue
            _log.info("engine_ready", start_s=round(self._clock.monotonic_s() - began_s, 3))
            self._take_up()
            self._tell(ready=True)
            return

    def _spend(self, fault: _Fault) -> float | None:
        """Count one more rebuild and return the pause before it; fail, and return None, where it is one too many."""
        settings = self._settings
        pause_s = self._budget.spend(self._clock.monotonic_s())
        if pause_s is None:
            message = (
                f"the engine was rebuilt {len(self._budget)} times within {settings.rebuild_window_s:g} s and failed "
                f"again (engine.rebuilds_max, engine.rebuild_window_s): {fault.error}"
            )
            self._fail(EngineError(message))
            return None
        self._metrics.engine_rebuilds.labels(fault.cause).inc()
        _log.warning(
            "engine_rebuilding", cause=fault.cause, rebuilds=len(self._budget), pause_s=pause_s
        )
        return pause_s

    async def _throw_away(self) -> None:
        """Kill the engine, and free what it held in this process."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
            self._watching = None
        inner = self._inner
        if inner is None:
            return
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await inner.kill()
                await inner.close()
        except TimeoutError:
            _log.warning("engine_close_timed_out", timeout_s=CLOSE_TIMEOUT_S)
        self._inner = None

    async def _start_another(self) -> None:
        timeout_s = self._settings.start_timeout_s
        self._inner = inner = self._make()
        self._policies = [*self._needed_policies(), self._policies[-1]]
        try:
            async with asyncio.timeout(timeout_s):
                await inner.start(self._policies[-1])
                for older in self._policies[:-1]:
                    await inner.prepare(older)
        except TimeoutError as error:
            message = f"the engine was not ready within {timeout_s:g} s (engine.start_timeout_s)"
            raise EngineError(message) from error

    def _needed_policies(self) -> list[PolicySet]:
        """Return the older sets by which something in flight is still to be judged."""
        asked = {entry.request.policy.sha256 for entry in self._ledger.open.values()}
        newest = {policy.sha256 for policy in self._policies[-1].policies.values()}
        needed: list[PolicySet] = []
        for older in self._policies[:-1]:
            own = {policy.sha256 for policy in older.policies.values()}
            if own & asked - newest:
                needed.append(older)
        return needed

    def _tell(self, *, ready: bool) -> None:
        self._changed(EngineState(ready, len(self._budget), self._last_fault))

    def _fail(self, error: BaseException) -> None:
        assert self._failed is not None, "start() comes first"
        with contextlib.suppress(asyncio.InvalidStateError):
            self._failed.set_result(error)
        self._ready.set()
