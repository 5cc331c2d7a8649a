"""Takes posts through the tiers of their policy, cheapest first; the last tier is the model.

The cascade is itself a judge, so that the pipeline knows no tiers. It works on lists, without a task for each post.
Each verdict carries the trail of every tier's work, and the skipped work. A request is delivered once, unless it
was cancelled; a cancelled post does not take along the judgement of an equal one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

from stream_guard.judging.contract import Answer, Provenance, TierStep
from stream_guard.judging.tiers import empty_post
from stream_guard.judging.tiers.duplicates import NEW, TIER, Duplicates, InFlight, Known, repeat
from stream_guard.judging.tiers.ladder import Ladder
from stream_guard.judging.tiers.model import Safeguard
from stream_guard.judging.tiers.pressure import Pressure
from stream_guard.judging.tiers.pressure_watch import observe_pressure, oldest_s
from stream_guard.judging.tiers.tier import Settled
from stream_guard.judging.tiers.tiered_request import TieredRequest, slices
from stream_guard.judging.tiers.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from stream_guard.core.clock import Clock
    from stream_guard.core.vocabulary import Tier
    from stream_guard.judging.contract import Judge, Judgement, JudgeRequest
    from stream_guard.judging.delivery import Deliver
    from stream_guard.judging.tiers.tier import CheapTier, Outcome
    from stream_guard.judging.tiers.worker import Screened
    from stream_guard.policies.policy import Policy, PolicySet
    from stream_guard.settings import CascadeSettings
    from stream_guard.telemetry.metrics import Metrics

__all__ = ["Cascade"]

_UNDETERMINED: Final = Answer("undetermined", parse_status="not_applicable")
_NOBODY: Final = "none"
"""The tier and model of a verdict that no tier decided."""


class Cascade:
    """A :class:`stream_guard.judging.contract.Judge` of several tiers; the last of them is a judge itself.

    Args:
        inner: the model's judge.
        tiers: between ``duplicates`` and the model; see :func:`stream_guard.judging.tiers.registry.make_tiers`.
        settings: order, cache, ladder, and limits of pressure.
        clock, metrics: the parts.
        delay_s_max: the longest that a tenant's quota delays a post, in s.
    """

    def __init__(
        self,
        inner: Judge,
        tiers: Iterable[CheapTier],
        settings: CascadeSettings,
        *,
        clock: Clock,
        metrics: Metrics,
        delay_s_max: float = 60,
    ) -> None:
        self.inner = inner
        self._tiers = {tier.name: tier for tier in tiers}
        self._names = settings.tiers
        self._clock = clock
        self._metrics = metrics
        self._pressure = Pressure(settings)
        self._safeguard = Safeguard(
            inner, Ladder(settings), self._pressure, clock, metrics, self, delay_s_max
        )
        self._duplicates = Duplicates(
            settings.duplicates_entries_max,
            settings.duplicates_ttl_s,
            clock.monotonic_s,
            across_tenants=settings.duplicates_across_tenants,
        )
        self._entries: dict[str, TieredRequest] = {}  # all that was taken, oldest first
        self._shared = InFlight()
        self._backlog: deque[list[TieredRequest]] = deque()
        self._turning = False
        self._worker: Worker[TieredRequest] = Worker(self._screened, self._fail)
        self._failed: asyncio.Future[BaseException] | None = None

    # Life

    async def start(self, policies: PolicySet) -> None:
        """Make every tier ready. Raises as :meth:`stream_guard.judging.contract.Judge.start`."""
        self._failed = asyncio.get_running_loop().create_future()
        await self._prepare_tiers(policies)
        await self.inner.start(policies)
        about = self.inner.describe()
        self._duplicates.name_model(f"{about.get('model', '')}@{about.get('revision', '')}")

    async def prepare(self, policies: PolicySet) -> None:
        """Make every tier ready for these policies as well. Raises PolicyError, EngineError."""
        await self._prepare_tiers(policies)
        await self.inner.prepare(policies)

    async def _prepare_tiers(self, policies: PolicySet) -> None:
        for tier in self._tiers.values():
            # A tier that screens in the thread is prepared there as well, between two screenings.
            if tier.blocking:
                await self._worker.run(lambda tier=tier: tier.prepare(policies))  # type: ignore[misc]
            else:
                await asyncio.to_thread(tier.prepare, policies)

    async def wait_failed(self) -> BaseException:
        """Return the error of the model's judge or of a tier; nothing is delivered after it."""
        assert self._failed is not None, "start() comes first"
        inner = asyncio.ensure_future(self.inner.wait_failed())
        try:
            await asyncio.wait({inner, self._failed}, return_when=asyncio.FIRST_COMPLETED)
            return self._failed.result() if self._failed.done() else inner.result()
        finally:
            inner.cancel()

    def describe(self) -> Mapping[str, str]:
        """Describe the model's judge."""
        return self.inner.describe()

    async def close(self) -> None:
        """Drop what is in flight, end the thread, and close the model's judge."""
        for entry in self._entries.values():
            entry.cancelled = True
        self._entries.clear()
        self._shared = InFlight()
        self._backlog.clear()
        self._safeguard.close()
        await asyncio.to_thread(self._worker.close)
        await self.inner.close()

    def _fail(self, error: BaseException) -> None:
        assert self._failed is not None, "start() comes first"
        if not self._failed.done():
            self._failed.set_result(error)

    # Pressure

    @property
    def level(self) -> int:
        """How much is left out now; see :mod:`stream_guard.judging.tiers.pressure`."""
        return self._pressure.level

    def oldest_s(self) -> float:
        """Return the age of the oldest post that is not delivered and does not wait on purpose, in s; 0 for none."""
        return oldest_s(self._entries.values(), self._clock.monotonic_s())

    def observe(self, lag_records: int | None) -> None:
        """Decide what to leave out from now on, by the oldest post's age and the lag; None if the lag is unknown."""
        observe_pressure(self._pressure, self.oldest_s(), lag_records, self._clock, self._metrics)

    # Requests

    def submit(self, requests: Sequence[JudgeRequest], deliver: Deliver) -> None:
        """Accept requests. Each is delivered once, in some call of ``deliver``."""
        now_s = self._clock.monotonic_s()
        entries = [TieredRequest(request, deliver, now_s) for request in requests]
        self._entries.update([(entry.request.id, entry) for entry in entries])
        if any(entry.request.post.empty for entry in entries):
            empty = [entry for entry in entries if entry.request.post.empty]
            entries = [entry for entry in entries if not entry.request.post.empty]
            self._sort(empty_post.TIER, empty, [empty_post.OUTCOME] * len(empty), 0)
        waits = self._turning
        for part in slices(entries):
            if waits:
                self._backlog.append(part)
            else:
                self._walk(part, part[0].request.policy, 0)
                waits = True
        if self._backlog and not self._turning:
            self._schedule()

    def cancel(self, requests: Sequence[JudgeRequest]) -> None:
        """Stop work on these requests. An equal post that waited for one of them continues in its place."""
        gone = []
        for request in requests:
            entry = self._entries.pop(request.id, None)
            if entry is not None:
                entry.cancelled = True
                gone.append(entry)
        asked, successors = [], []
        for entry in gone:
            if entry.asked:
                asked.append(entry.request)
            self._safeguard.forget(entry)
            successor = self._shared.replace_leader(entry)
            if successor is not None:
                successors.append(successor)
        if asked:
            self.inner.cancel(asked)
        for successor in successors:
            policy = successor.request.policy
            self._walk([successor], policy, self._route(policy).index(TIER) + 1)

    def in_flight(self) -> int:
        """Return how many requests are accepted and not delivered."""
        return len(self._entries)

    def find(self, request_id: str) -> TieredRequest | None:
        """Return the request in flight with this id; None if it was cancelled."""
        return self._entries.get(request_id)

    def _schedule(self) -> None:
        self._turning = True
        asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        """Process one slice of the backlog; the event loop gets its turn between slices."""
        self._turning = False
        if not self._backlog:
            return
        part = [entry for entry in self._backlog.popleft() if not entry.cancelled]
        if self._backlog:
            self._schedule()
        if part:
            self._walk_on(part, part[0].request.policy, 0)

    def _walk_on(self, entries: list[TieredRequest], policy: Policy, at: int) -> None:
        """Walk from a callback of the event loop: an error ends the judge."""
        try:
            self._walk(entries, policy, at)
        except Exception as error:  # noqa: BLE001 - wait_failed() returns it
            self._fail(error)

    # Tiers

    def _route(self, policy: Policy) -> tuple[Tier, ...]:
        return policy.tiers or self._names

    def _walk(self, entries: list[TieredRequest], policy: Policy, at: int) -> None:
        """Take posts of one policy through its tiers, from tier number ``at`` on."""
        route = self._route(policy)
        for index in range(at, len(route)):
            if not entries:
                return
            name = route[index]
            if name == "safeguard":
                self._safeguard.ask(entries, policy)
                return
            if name == TIER:
                entries = self._find_duplicates(entries, policy)
                continue
            tier = self._tiers.get(name)
            if tier is None or not tier.wants(policy):
                continue
            if tier.blocking:
                self._worker.put(tier, policy, index, entries)
                return
            began_s = self._clock.monotonic_s()
            outcomes = tier.screen([entry.request.post for entry in entries], policy)
            duration_us = self._share_us(began_s, len(entries))
            entries = self._sort(name, entries, outcomes, duration_us)
        if entries:
            self.give_up(entries, None, ())

    def _share_us(self, began_s: float, count: int) -> int:
        return round((self._clock.monotonic_s() - began_s) * 1e6 / count)

    def _screened(self, screened: Screened[TieredRequest]) -> None:
        """Continue with what the thread has screened."""
        name = self._route(screened.policy)[screened.at]
        entries = self._sort(name, screened.items, screened.outcomes, screened.duration_us)
        self._walk_on(entries, screened.policy, screened.at + 1)

    def _sort(
        self,
        name: str,
        entries: Sequence[TieredRequest],
        outcomes: Sequence[Outcome],
        duration_us: int,
    ) -> list[TieredRequest]:
        """Deliver what a tier settled; return the rest, with the tier's step in its trail."""
        assert len(outcomes) == len(entries), "a tier has one outcome for each post"
        rest: list[TieredRequest] = []
        settled: list[tuple[TieredRequest, Judgement]] = []
        now_ns = self._clock.wall_ns()
        before: tuple[TierStep, ...] | None = None
        trail: tuple[TierStep, ...] = ()
        for entry, outcome in zip(entries, outcomes, strict=True):
            if entry.cancelled:
                continue
            if isinstance(outcome, Settled):
                step = TierStep(name, "settled", outcome.reason, duration_us)
                provenance = Provenance(
                    tier=name, model=outcome.model, attempts=0, trail=(*entry.steps, step)
                )
                judgement = entry.judgement(outcome.answer, provenance, now_ns)
                judgement.confidence = outcome.confidence
                judgement.confidence_method = outcome.confidence_method
                settled.append((entry, judgement))
                continue
            # Equal trails of a list are made once.
            if entry.steps is not before or trail[-1].reason != outcome.reason:
                before = entry.steps
                trail = (*before, TierStep(name, "escalated", outcome.reason, duration_us))
            entry.steps = trail
            rest.append(entry)
        self._metrics.count_tier(name, settled=len(settled), escalated=len(rest))
        self.settle(settled)
        return rest

    # Duplicates

    def _find_duplicates(self, entries: list[TieredRequest], policy: Policy) -> list[TieredRequest]:
        """Deliver repeats, make posts wait for equal ones in flight, and return the new ones."""
        began_s = self._clock.monotonic_s()
        keys = self._duplicates.keys([entry.request.post for entry in entries], policy)
        found = self._duplicates.find(keys)
        duration_us = self._share_us(began_s, len(entries))
        join, rest, repeats = self._shared.join, [], []
        step = TierStep(TIER, "escalated", NEW, duration_us)
        before: tuple[TierStep, ...] | None = None
        trail: tuple[TierStep, ...] = ()
        now_ns = self._clock.wall_ns()
        for entry, key, known in zip(entries, keys, found, strict=True):
            if known is not None:
                made = repeat(entry, known, how="repeats", us=duration_us, now_ns=now_ns)
                repeats.append((entry, made))
                continue
            if join(entry, key):
                continue
            if entry.steps is not before:
                before, trail = entry.steps, (*entry.steps, step)
            entry.steps = trail
            rest.append(entry)
        self._metrics.count_tier(TIER, settled=len(repeats), escalated=len(rest))
        self.settle(repeats)
        return rest

    # Delivery

    def give_up(
        self, entries: Sequence[TieredRequest], step: TierStep | None, degraded: tuple[str, ...]
    ) -> None:
        """Deliver as undetermined what no tier settled. The policy says what to do with it."""
        now_ns = self._clock.wall_ns()
        settled = []
        for entry in entries:
            trail = entry.steps if step is None else (*entry.steps, step)
            provenance = Provenance(
                _NOBODY, _NOBODY, attempts=0, degraded=(*entry.degraded, *degraded), trail=trail
            )
            settled.append((entry, entry.judgement(_UNDETERMINED, provenance, now_ns)))
        self.settle(settled)

    def settle(self, settled: Sequence[tuple[TieredRequest, Judgement]]) -> None:
        """Deliver these, and all posts that waited for them."""
        if not settled:
            return
        groups: dict[Deliver, list[Judgement]] = {}
        pop = self._entries.pop
        deliver: Deliver | None = None
        group: list[Judgement] = []
        for entry, judgement in settled:
            pop(entry.request.id, None)
            if entry.deliver is not deliver:
                deliver = entry.deliver
                group = groups.setdefault(deliver, [])
            group.append(judgement)
            if entry.key is not None and self._shared.leave(entry):
                self._duplicates.store(entry.key, judgement)
                if entry.followers:
                    self._follow(entry.followers.values(), judgement, groups)
        for each, judgements in groups.items():
            each(judgements)

    def _follow(
        self,
        followers: Collection[TieredRequest],
        judgement: Judgement,
        groups: dict[Deliver, list[Judgement]],
    ) -> None:
        """Deliver a leader's answer, or its error, to all posts that waited for it."""
        now_s, now_ns = self._clock.monotonic_s(), self._clock.wall_ns()
        known = Known.of(judgement)
        for entry in followers:
            self._entries.pop(entry.request.id, None)
            if known is None:
                made = entry.judgement(None, None, now_ns)
                made.error = judgement.error
            else:
                us = round((now_s - entry.since_s) * 1e6)
                made = repeat(entry, known, how="joins", us=us, now_ns=now_ns)
            groups.setdefault(entry.deliver, []).append(made)
        self._metrics.count_tier(TIER, settled=len(followers))
