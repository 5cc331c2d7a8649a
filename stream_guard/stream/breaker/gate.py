"""Holds verdicts until their actions are granted, or makes them reviews: a judge around the judge.

The pipeline sees a judge like any other. Without limits the gate passes requests on and does nothing else.
"""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from stream_guard.core.errors import BrokerError, PolicyError
from stream_guard.judging.verdict import ACTION_LIMITED, recommended_action
from stream_guard.records.verdict_changes import HUMAN
from stream_guard.stream.breaker.book import Book
from stream_guard.stream.breaker.limits import UNLIMITED_ACTIONS, LimitFinder
from stream_guard.stream.breaker.notices import Notices

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from stream_guard.core.clock import Clock
    from stream_guard.judging.contract import Judge, JudgeRequest
    from stream_guard.judging.delivery import Deliver
    from stream_guard.policies.policy import PolicySet
    from stream_guard.settings import ActionsSettings
    from stream_guard.stream.breaker.entries import Pair
    from stream_guard.stream.breaker.limits import Held, Scope
    from stream_guard.stream.in_flight import PostJudgement
    from stream_guard.stream.ports import BreakerLog
    from stream_guard.telemetry.metrics import Metrics

_TICK_S: Final = 0.25
_POSTS_EVERY_TICKS: Final = 20
_FORGET_EVERY_TICKS: Final = 240
_TAKEN_MAX: Final = 100_000
_EARLY_MAX: Final = 10_000
_Key = tuple[str, int, int, str, str]
"""What a verdict id is made from."""


@dataclass(slots=True, eq=False)
class _Waiting:
    """A judgement whose action is not granted yet."""

    judgement: PostJudgement
    deliver: Deliver
    held: tuple[Held, ...]
    action: str
    deadline_s: float


class ActionGate:
    """A :class:`stream_guard.judging.contract.Judge` that limits actions.

    Args:
        inner: the judge.
        settings: the section.
        make_log: returns the topic; called once there is a limit.
        clock, metrics: the parts.
        show: called with what ``/healthz`` shows, whenever it changes.
    """

    def __init__(
        self,
        inner: Judge,
        settings: ActionsSettings,
        *,
        make_log: Callable[[], BreakerLog],
        clock: Clock,
        metrics: Metrics,
        show: Callable[[Mapping[str, Any]], None],
    ) -> None:
        self._inner = inner
        self._settings = settings
        self._make_log = make_log
        self._clock = clock
        self._metrics = metrics
        self._notices = Notices(metrics, show)
        self._finder = LimitFinder(settings.limits)
        self._book = Book(settings, uuid.uuid4().hex[:12])
        self._log: BreakerLog | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._waiting: deque[_Waiting] = deque()
        self._taken: OrderedDict[_Key, int] = OrderedDict()
        self._outbox: list[Pair] = []
        self._early: deque[tuple[int, str | None, str | None, str | None]] = deque(
            maxlen=_EARLY_MAX
        )
        self._wake = asyncio.Event()
        self._with_posts = False
        self._failed: asyncio.Future[BaseException] | None = None

    # The judge

    async def start(self, policies: PolicySet) -> None:
        """Start the judge and, if there are limits, read the topic. Raises as the judge, and BrokerError."""
        await self._inner.start(policies)
        await self._open(policies)

    async def prepare(self, policies: PolicySet) -> None:
        """Make ready for an edit. Raises PolicyError also where its limits cannot be counted."""
        await self._inner.prepare(policies)
        try:
            await self._open(policies)
        except BrokerError as error:
            message = f"the policies declare limits, which cannot be counted: {error}"
            raise PolicyError(message) from error

    def submit(self, requests: Sequence[JudgeRequest[Any]], deliver: Deliver) -> None:
        """See :meth:`stream_guard.judging.contract.Judge.submit`."""
        if self._log is None:
            self._inner.submit(requests, deliver)
        else:
            self._inner.submit(requests, partial(self._judged, deliver))

    def cancel(self, requests: Sequence[JudgeRequest[Any]]) -> None:
        """See :meth:`stream_guard.judging.contract.Judge.cancel`."""
        self._inner.cancel(requests)
        if self._waiting:
            ids = {request.id for request in requests}
            self._waiting = deque(
                one for one in self._waiting if one.judgement.request.id not in ids
            )

    def in_flight(self) -> int:
        """Return the requests that are not delivered."""
        return self._inner.in_flight() + len(self._waiting)

    async def wait_failed(self) -> BaseException:
        """Return the error after which the judge judges no more, or actions cannot be counted."""
        if self._failed is None:
            self._failed = asyncio.get_running_loop().create_future()
        inner = asyncio.ensure_future(self._inner.wait_failed())
        try:
            await asyncio.wait([inner, self._failed], return_when=asyncio.FIRST_COMPLETED)
            return self._failed.result() if self._failed.done() else inner.result()
        finally:
            inner.cancel()

    def describe(self) -> Mapping[str, str]:
        """Describe the judge."""
        return self._inner.describe()

    async def close(self) -> None:
        """Give back what is reserved and not used, and close the topic and the judge."""
        log, self._log = self._log, None
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if log is not None:
            await log.close(self._book.give_back(self._now_ms()))
        await self._inner.close()

    # People

    def reset(
        self,
        at_ms: int,
        *,
        action: str | None = None,
        policy: str | None = None,
        tenant: str | None = None,
    ) -> None:
        """Close breakers for all replicas, as a person decided; it takes effect once it is read back.

        Args:
            at_ms: when it was decided, Unix time in ms. Breakers that opened later stay open.
            action: close only breakers of this action; None closes those of any.
            policy: the same of a policy.
            tenant: the same of a tenant.
        """
        if self._log is None:
            self._early.append((at_ms, action, policy, tenant))  # read before the breakers were
            return
        names = {"action": action, "policy": policy, "tenant": tenant}
        self._outbox += self._book.reset(at_ms, self._now_ms(), **names)
        self._wake.set()

    # Deciding

    def _judged(self, deliver: Deliver, judgements: Sequence[PostJudgement]) -> None:
        now_ms = self._now_ms()
        passed: list[PostJudgement] = []
        waiting: list[_Waiting] = []
        for judgement in judgements:
            wanted = self._wanted(judgement, deliver, now_ms)
            if wanted is None:
                passed.append(judgement)
                continue
            outcome = self._decide(wanted, now_ms)
            if outcome is None:
                waiting.append(wanted)
            else:
                passed.append(outcome)
        if waiting:
            self._waiting.extend(waiting)
            self._wake.set()
        if passed:
            deliver(passed)

    def _wanted(self, judgement: PostJudgement, deliver: Deliver, now_ms: int) -> _Waiting | None:
        """Return the action that a judgement asks for; None where no limit holds for it."""
        request, answer = judgement.request, judgement.answer
        policy, tenant = request.policy, request.post.tenant
        if answer is None or not self._finder.limits(policy):
            return None
        if request.context.abandoned or _is_shadow(judgement) or _is_human(judgement):
            return None
        self._book.count_post(self._finder.of_post(policy, tenant), now_ms)
        action = recommended_action(answer, policy)
        if action in UNLIMITED_ACTIONS:
            return None
        held = self._finder.of_action(policy, tenant, action)
        if not held:
            return None
        deadline_s = self._clock.monotonic_s() + self._settings.wait_timeout_s
        return _Waiting(judgement, deliver, held, action, deadline_s)

    def _decide(self, wanted: _Waiting, now_ms: int) -> PostJudgement | None:
        """Return the judgement as it goes on; None while it has to wait."""
        key = _key_of(wanted.judgement)
        taken_ms = self._taken.get(key)
        if taken_ms is not None and self._book.same_part(wanted.held, taken_ms, now_ms):
            return (
                wanted.judgement
            )  # a record that was read again: its verdict id has its action already
        outcome = self._book.decide(wanted.held, now_ms)
        if outcome == "waiting":
            return None
        if outcome == "limited":
            return self._limit(wanted, "limit")
        self._taken[key] = now_ms
        if len(self._taken) > _TAKEN_MAX:
            self._taken.popitem(last=False)
        return wanted.judgement

    def _limit(self, wanted: _Waiting, cause: str) -> PostJudgement:
        """Return the judgement with a review instead of its action."""
        judgement = wanted.judgement
        self._metrics.limited_actions.labels(
            judgement.request.policy.id, wanted.action, cause
        ).inc()
        assert judgement.provenance is not None, "a judge says how it came to its answer"
        provenance = judgement.provenance.copy()
        provenance.degraded = (*provenance.degraded, ACTION_LIMITED)
        return replace(judgement, provenance=provenance)

    def _settle(self) -> None:
        """Deliver what need not wait any longer."""
        now_ms, now_s = self._now_ms(), self._clock.monotonic_s()
        by_caller: dict[int, tuple[Deliver, list[PostJudgement]]] = {}
        still: deque[_Waiting] = deque()
        for wanted in self._waiting:
            outcome = self._decide(wanted, now_ms)
            if outcome is None and now_s >= wanted.deadline_s:
                outcome = self._limit(wanted, "unanswered")
            if outcome is None:
                still.append(wanted)
            else:
                by_caller.setdefault(id(wanted.deliver), (wanted.deliver, []))[1].append(outcome)
        self._waiting = still
        for deliver, outcomes in by_caller.values():
            deliver(outcomes)

    # The topic

    async def _open(self, policies: PolicySet) -> None:
        if self._log is not None or not self._finder.any_limit(policies.policies.values()):
            return
        log = self._make_log()
        await log.start(self._read)
        self._log = log
        self._publish_state()
        while self._early:
            at_ms, action, policy, tenant = self._early.popleft()
            self.reset(at_ms, action=action, policy=policy, tenant=tenant)
        self._begin(self._write(log), "breaker-write")
        self._begin(self._tick(), "breaker-tick")
        self._begin(self._watch(log), "breaker-watch")

    def _begin(self, running: Any, name: str) -> None:  # noqa: ANN401 - a coroutine
        task = asyncio.create_task(running, name=name)
        task.add_done_callback(self._ended)
        self._tasks.append(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or task.exception() is None:
            return
        if self._failed is None:
            self._failed = asyncio.get_running_loop().create_future()
        if not self._failed.done():
            self._failed.set_result(task.exception())  # type: ignore[arg-type] # it has one

    async def _watch(self, log: BreakerLog) -> None:
        raise await log.wait_failed()

    def _read(self, records: Sequence[tuple[int, bytes | None, bytes | None]]) -> None:
        """Take records of the topic."""
        self._book.read(records, self._now_ms())
        self._settle()
        self._publish_state()
        self._wake.set()

    async def _write(self, log: BreakerLog) -> None:
        """Write what is due, one request at a time: their order is that of the numbers in them."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            waiting: Counter[Scope] = Counter()
            for wanted in self._waiting:
                waiting.update(scope for scope, _ in wanted.held)
            self._book.want(waiting)
            with_posts, self._with_posts = self._with_posts, False
            pairs, self._outbox = self._outbox, []
            pairs += self._book.write(self._now_ms(), with_posts=with_posts)
            self._settle()  # a breaker may have opened
            self._publish_state()
            if pairs:
                await log.append(pairs)

    async def _tick(self) -> None:
        """Do what only time makes due."""
        for count in itertools.count(1):
            await asyncio.sleep(_TICK_S)
            self._settle()
            self._publish_state()
            if count % _POSTS_EVERY_TICKS == 0:
                self._with_posts = True
                self._wake.set()
            if count % _FORGET_EVERY_TICKS == 0:
                self._outbox += self._book.forget(self._now_ms())
            if self._waiting:
                self._wake.set()

    def _publish_state(self) -> None:
        self._notices.publish(self._book, self._now_ms())

    def _now_ms(self) -> int:
        return self._clock.wall_ns() // 1_000_000


def _is_shadow(judgement: PostJudgement) -> bool:
    modes = judgement.request.context.modes
    return modes is not None and modes[judgement.request.policy.id] == "shadow"


def _is_human(judgement: PostJudgement) -> bool:
    """Return whether a person decided it: limits hold for the machine alone."""
    return judgement.provenance is not None and judgement.provenance.tier == HUMAN


def _key_of(judgement: PostJudgement) -> _Key:
    record, policy = judgement.request.context.record, judgement.request.policy
    return record.topic, record.partition, record.offset, policy.id, policy.sha256
