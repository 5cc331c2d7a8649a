"""Keeps judging while engines die: kills and rebuilds an engine that is dead or hangs, and retries its posts.

Every request is kept until it is delivered or cancelled (see ``ledger``). What a dead engine delivers is ignored. The
number of rebuilds is limited; the death of one engine does not end the process.
"""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

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
from stream_guard.judging.contract import Judgement
from stream_guard.judging.delivery import hand_out
from stream_guard.judging.engine.endurance import RebuildBudget
from stream_guard.judging.engine.ledger import Ledger
from stream_guard.judging.engine.lifetime import Fault, Lifetime

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from stream_guard.core.clock import Clock
    from stream_guard.judging.contract import JudgeRequest
    from stream_guard.judging.delivery import Deliver, Pending
    from stream_guard.judging.engine.lifetime import KillableJudge
    from stream_guard.judging.engine.waiting import Waiting
    from stream_guard.policies.policy import PolicySet
    from stream_guard.settings import EngineSettings
    from stream_guard.telemetry.metrics import Metrics

_log = structlog.get_logger(__name__)
TICK_S: Final = 1.0
"""How often we check whether the engine hangs."""


class EngineState(NamedTuple):
    """What the supervisor reports of its engine.

    Attributes:
        ready: whether posts are being judged.
        rebuilds: within ``engine.rebuild_window_s``.
        last_fault: why the last engine ended; None if none has.
    """

    ready: bool
    rebuilds: int
    last_fault: str | None


class Pace(NamedTuple):
    """How a supervisor waits.

    Attributes:
        tick_s: how often it checks whether the engine hangs, in s.
        sleep: how to wait before a rebuild.
    """

    tick_s: float = TICK_S
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class SupervisedJudge:
    """A :class:`stream_guard.judging.contract.Judge` on engines that can die.

    Args:
        make: makes an engine's judge, not started.
        settings: the section.
        clock, metrics: the parts.
        changed: called whenever the engine goes down or is ready again, except for the first start.
        closed: awaited at the end of :meth:`close`.
        waiting: says in which order requests enter the engine; by default first come, first served.
        pace: how it waits.
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
        waiting: Waiting[Pending] | None = None,
        pace: Pace = Pace(),  # noqa: B008 - it never changes
    ) -> None:
        self._make = make
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._changed = changed
        self._closed = closed
        self._pace = pace
        window = settings.requests_max
        self._life: Lifetime | None = None
        self._about: Mapping[str, str] = {}
        # The newest last; before it those by which something in flight may still be judged.
        self._policies: list[PolicySet] = []
        self._ledger = Ledger(window, settings.deaths_per_post_max, waiting)
        self._filling = False
        # Also set once we have failed, so that nobody waits without end.
        self._ready = asyncio.Event()
        self._failed: asyncio.Future[BaseException] | None = None
        self._deliver: Deliver
        self._budget = RebuildBudget(settings)
        self._inactivity = InactivityTimer(pace.tick_s)
        self._last_fault: str | None = None
        self._tasks: list[asyncio.Task[None]] = []

    # Life

    async def start(self, policies: PolicySet) -> None:
        """Start the first engine. Its error is raised without a retry, since such a set-up has never worked."""
        self._failed = asyncio.get_running_loop().create_future()
        self._policies = [policies]
        life = self._begin()
        await life.start(policies)
        self._adopt(life)
        self._tasks = [
            asyncio.create_task(self._supervise(), name="engine supervisor"),
            asyncio.create_task(self._check_regularly(), name="engine hang watch"),
        ]

    async def prepare(self, policies: PolicySet) -> None:
        """Make ready to judge by these policies as well, on this engine or, if it dies, on the next.

        Raises:
            PolicyError: the policies cannot be used, or the engine dies each time it prepares them.
            EngineError: the rebuild limit was reached.
        """
        for _ in range(self._settings.deaths_per_post_max):
            await self._ready.wait()
            if self._failure is not None:
                raise self._failure
            assert self._life is not None, "it is ready"
            if await self._life.prepare(policies):
                # The previous set stays in use until the caller switches to this one.
                self._policies = [*self._needed_policies(), self._policies[-1], policies]
                return
        message = (
            f"the engine died or hung in each of {self._settings.deaths_per_post_max} attempts to prepare these "
            "policies (engine.deaths_per_post_max); vLLM's log says why"
        )
        raise PolicyError(message)

    async def wait_failed(self) -> BaseException:
        """Return the error after which no engine is rebuilt."""
        assert self._failed is not None, "start() comes first"
        return await asyncio.shield(self._failed)

    def describe(self) -> Mapping[str, str]:
        """Describe the engine, or the last one."""
        return self._about if self._life is None else self._life.judge.describe()

    async def close(self) -> None:
        """Drop what is in flight, and stop the engine, also while it starts."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        self._ledger.clear()
        life, self._life = self._life, None
        if life is not None:
            await life.unwatch()
            if not self._ready.is_set() or self._failure is not None:
                await life.judge.kill()
            await life.judge.close()
        if self._closed is not None:
            await self._closed()

    # Requests

    def submit(self, requests: Sequence[JudgeRequest], deliver: Deliver) -> None:
        """Accept requests, also while there is no engine."""
        self._ledger.accept(requests, deliver, self._clock.monotonic_s())
        self._fill()

    def cancel(self, requests: Sequence[JudgeRequest]) -> None:
        """Forget these requests, and do not deliver them."""
        had = self._ledger.cancel(requests)
        if had and self._life is not None:
            self._life.judge.cancel(had)
        self._fill()

    def in_flight(self) -> int:
        """Return how many requests are accepted and not delivered."""
        return len(self._ledger.open)

    def _fill(self) -> None:
        """Give the engine what it may have now. A judge that answers at once calls us again from within."""
        if self._filling:
            return
        self._filling = True
        try:
            while (life := self._life) is not None and life.is_up:
                idle = not self._ledger.handed
                batch = self._ledger.next(self._clock.monotonic_s())
                if not batch:
                    return
                if idle:
                    self._inactivity.reset()
                life.judge.submit([pending.request for pending in batch], self._deliver)
        finally:
            self._filling = False

    def _delivered(self, life: Lifetime, judgements: Sequence[Judgement]) -> None:
        """Pass on what an engine judged, unless it was replaced or has ended."""
        if life is not self._life or not life.is_up:
            return
        by_caller = self._ledger.settle(judgements)
        if by_caller:
            self._inactivity.reset()
            self._budget.judged()
        hand_out(by_caller, self._fail)
        self._fill()

    # Death, hanging, and rebuilding

    @property
    def _failure(self) -> BaseException | None:
        return self._failed.result() if self._failed is not None and self._failed.done() else None

    def check_hang(self) -> None:
        """End the engine if it hangs. Time in which this process itself did not run does not count."""
        life = self._life
        up = life is not None and life.is_up
        busy = life is not None and up and bool(self._ledger.handed or life.preparing)
        silent_s = self._inactivity.measure(self._clock.monotonic_s(), expecting=busy)
        if life is not None and silent_s > self._settings.hang_s:
            message = (
                f"the engine hangs: it decided none of {len(self._ledger.handed)} posts in flight for "
                f"{self._settings.hang_s:g} s (engine.hang_timeout_s)"
            )
            life.end(Fault("hung", EngineHungError(message)))

    async def _check_regularly(self) -> None:
        while True:
            await asyncio.sleep(self._pace.tick_s)
            self.check_hang()

    def _begin(self) -> Lifetime:
        self._life = life = Lifetime(self._make(), self._ready.clear)
        return life

    def _adopt(self, life: Lifetime) -> None:
        """Give work to an engine that is ready, and watch it."""
        # One function for all requests, so that the judge can group by it.
        self._deliver = partial(self._delivered, life)
        self._about = life.judge.describe()
        self._inactivity.reset()
        life.watch()
        self._ready.set()
        self._fill()

    async def _supervise(self) -> None:
        try:
            while self._failure is None:
                assert self._life is not None, "an engine is up"
                fault = await self._life.wait_ended()
                self._blame(fault)
                self._report(ready=False)
                await self._rebuild(fault)
        except Exception as error:  # noqa: BLE001 - a bug of ours: the process has to end with it
            self._fail(error)

    def _blame(self, fault: Fault) -> None:
        """Suspect the posts that were in the engine, and reject one that was alone in it too often."""
        self._last_fault = str(fault.error)
        _log.error(
            "engine_died",
            cause=fault.cause,
            error=self._last_fault,
            posts_in_it=len(self._ledger.handed),
            in_flight=len(self._ledger.open),
        )
        culprit = self._ledger.record_death()
        if culprit is None:
            return
        pending, deaths = culprit
        request = pending.request
        _log.error("post_killed_engine", policy=request.policy.id, deaths=deaths)
        now_ns = self._clock.wall_ns()
        error = EngineKilledError(deaths)
        pending.deliver([Judgement(request, error=error, started_ns=now_ns, finished_ns=now_ns)])

    async def _rebuild(self, fault: Fault) -> None:
        """Return once an engine is up, or after the limit was reached."""
        while True:
            life = self._life
            if life is not None:
                await life.throw_away()
                self._life = None
            pause_s = self._spend(fault)
            if pause_s is None:
                return
            await self._pace.sleep(pause_s)
            began_s = self._clock.monotonic_s()
            try:
                life = await self._start_another()
            except OperatorError as error:
                self._fail(error)
                return
            except Exception as error:  # noqa: BLE001 - an engine fails to start with any error; it counts
                fault = Fault("start", error)
                self._last_fault = named(error)
                _log.error("engine_start_failed", error=self._last_fault)
                continue
            _log.info("engine_ready", start_s=round(self._clock.monotonic_s() - began_s, 3))
            self._adopt(life)
            self._report(ready=True)
            return

    def _spend(self, fault: Fault) -> float | None:
        """Count one more rebuild and return the pause before it in s; fail and return None above the limit."""
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

    async def _start_another(self) -> Lifetime:
        timeout_s = self._settings.start_timeout_s
        life = self._begin()
        self._policies = [*self._needed_policies(), self._policies[-1]]
        try:
            async with asyncio.timeout(timeout_s):
                await life.start(self._policies[-1], self._policies[:-1])
        except TimeoutError as error:
            message = f"the engine was not ready within {timeout_s:g} s (engine.start_timeout_s)"
            raise EngineError(message) from error
        return life

    def _needed_policies(self) -> list[PolicySet]:
        """Return the older sets by which something in flight is still to be judged."""
        asked = {pending.request.policy.sha256 for pending in self._ledger.open.values()}
        newest = {policy.sha256 for policy in self._policies[-1].policies.values()}
        needed: list[PolicySet] = []
        for older in self._policies[:-1]:
            own = {policy.sha256 for policy in older.policies.values()}
            if own & asked - newest:
                needed.append(older)
        return needed

    def _report(self, *, ready: bool) -> None:
        self._changed(EngineState(ready, len(self._budget), self._last_fault))

    def _fail(self, error: BaseException) -> None:
        assert self._failed is not None, "start() comes first"
        with contextlib.suppress(asyncio.InvalidStateError):
            self._failed.set_result(error)
        self._ready.set()
