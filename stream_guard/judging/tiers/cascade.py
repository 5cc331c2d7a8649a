"""Takes posts through the tiers of their policy, cheapest first, before the model and round it.

A judge round another judge: the pipeline knows no tiers. It works on lists, with no task per post, and each verdict
carries the trail of what every tier did. What it must never do: deliver a request twice or not at all (unless it was
cancelled), let one post's cancellation take another's judgement along, or leave something out without saying so.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final, TypeAlias

import structlog

from stream_guard.judging.contract import Answer, Judgement, Provenance, TierStep
from stream_guard.judging.tiers.duplicates import NEW, TIER, Duplicates, InFlight, Known, repeat
from stream_guard.judging.tiers.entry import Entry, slices
from stream_guard.judging.tiers.ladder import Ladder
from stream_guard.judging.tiers.model import Safeguard
from stream_guard.judging.tiers.pressure import NAMES, Pressure
from stream_guard.judging.tiers.tier import Settled
from stream_guard.judging.tiers.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from stream_guard.core.clock import Clock
    from stream_guard.core.vocabulary import Tier
    from stream_guard.judging.contract import Judge, JudgeRequest
    from stream_guard.judging.tiers.tier import CheapTier, Outcome
    from stream_guard.judging.tiers.worker import Looked
    from stream_guard.policies.policy import Policy, PolicySet
    from stream_guard.settings import CascadeSettings
    from stream_guard.telemetry.metrics import Metrics

__all__ = ["Cascade"]

_log = structlog.get_logger(__name__)
_UNDETERMINED: Final = Answer("undetermined", parse_status="not_applicable")
_Deliver: TypeAlias = "Callable[[Sequence[Judgement]], None]"
_NOBODY: Final = "none"
"""The tier and model of a verdict that no tier decided."""


class Cascade:
    """A :class:`stream_guard.judging.contract.Judge` of several tiers; the last of them is a judge itself.

    Args:
        inner: the judge that reasons.
        tiers: those between ``duplicates`` and it, by name; see :func:`stream_guard.judging.tiers.registry.make_tiers`.
        settings: order, cache, ladder, and limits of pressure.
        clock, metrics: the parts.
    """

    def __init__(
        self,
        inner: Judge,
        tiers: Iterable[CheapTier],
        settings: CascadeSettings,
        *,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self.inner = inner
        self._tiers = {tier.name: tier for tier in tiers}
        self._names = settings.tiers
        self._clock = clock
        self._metrics = metrics
        self._pressure = Pressure(settings)
        self._safeguard = Safeguard(inner, Ladder(settings), self._pressure, metrics, self)
        self._duplicates = Duplicates(
            settings.duplicates_entries_max, settings.duplicates_ttl_s, clock.monotonic_s
        )
        self._entries: dict[str, Entry] = {}  # all that was taken, oldest first
        self._shared = InFlight()
        self._backlog: deque[list[Entry]] = deque()
        self._turning = False
        self._worker: Worker[Entry] = Worker(self._looked, self._fail)
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
        """Make every tier ready for these as well. Raises PolicyError, EngineError."""
        await self._prepare_tiers(policies)
        await self.inner.prepare(policies)

    async def _prepare_tiers(self, policies: PolicySet) -> None:
        for tier in self._tiers.values():
            # What looks in the thread is prepared there too, between two looks.
            if tier.blocking:
                await self._worker.run(lambda tier=tier: tier.prepare(policies))  # type: ignore[misc]
            else:
                await asyncio.to_thread(tier.prepare, policies)

    async def wait_failed(self) -> BaseException:
        """Return the error of the judge inside, or of a tier, after which nothing more is delivered."""
        assert self._failed is not None, "start() comes first"
        inner = asyncio.ensure_future(self.inner.wait_failed())
        try:
            await asyncio.wait({inner, self._failed}, return_when=asyncio.FIRST_COMPLETED)
            return self._failed.result() if self._failed.done() else inner.result()
        finally:
            inner.cancel()

    def describe(self) -> Mapping[str, str]:
        """Describe the judge inside."""
        return self.inner.describe()

    async def close(self) -> None:
        """Drop what is in flight, end the thread, and close the judge inside."""
        for entry in self._entries.values():
            entry.cancelled = True
        self._entries.clear()
        self._shared = InFlight()
        self._backlog.clear()
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
        """Return the age of the oldest post that is not delivered, in s; 0 where there is none."""
        for entry in self._entries.values():
            return self._clock.monotonic_s() - entry.since_s
        return 0.0

    def observe(self, lag_records: int | None) -> None:
        """Look at how old posts are and how many are still to be read, and decide what to leave out from now on."""
        before, age_s = self._pressure.level, self.oldest_s()
        level = self._pressure.update(self._clock.monotonic_s(), age_s, lag_records)
        if level == before:
            return
        self._metrics.pressure_level.set(level)
        self._metrics.pressure_changes.labels(NAMES[level]).inc()
        (_log.warning if level > before else _log.info)(
            "pressure_changed",
            level=NAMES[level],
            before=NAMES[before],
            oldest_s=round(age_s, 1),
            lag_records=lag_records,
        )

    # Requests

    def submit(self, requests: Sequence[JudgeRequest], deliver: _Deliver) -> None:
        """Take requests; each comes back, once, in some call of ``deliver``."""
        now_s = self._clock.monotonic_s()
        entries = [Entry(request, deliver, now_s) for request in requests]
        self._entries.update([(entry.request.id, entry) for entry in entries])
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
        """Stop work on these; an equal post that waited for one of them goes on in its place."""
        gone = []
        for request in requests:
            entry = self._entries.pop(request.id, None)
            if entry is not None:
                entry.cancelled = True
                gone.append(entry)
        asked, heirs = [], []
        for entry in gone:
            if entry.asked:
                asked.append(entry.request)
            heir = self._shared.bequeath(entry)
            if heir is not None:
                heirs.append(heir)
        if asked:
            self.inner.cancel(asked)
        for heir in heirs:
            policy = heir.request.policy
            self._walk([heir], policy, self._route(policy).index(TIER) + 1)

    def in_flight(self) -> int:
        """Requests taken and not yet delivered."""
        return len(self._entries)

    def find(self, request_id: str) -> Entry | None:
        """Return what is in flight by this id."""
        return self._entries.get(request_id)

    def _schedule(self) -> None:
        self._turning = True
        asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        """Take one slice of what waits, and let the event loop have its turn."""
        self._turning = False
        if not self._backlog:
            return
        part = [entry for entry in self._backlog.popleft() if not entry.cancelled]
        if self._backlog:
            self._schedule()
        if part:
            self._walk_on(part, part[0].request.policy, 0)

    def _walk_on(self, entries: list[Entry], policy: Policy, at: int) -> None:
        """Walk where nobody is above to take an error: it ends the judge."""
        try:
            self._walk(entries, policy, at)
        except Exception as error:  # noqa: BLE001 - wait_failed() returns it
            self._fail(error)

    # Tiers

    def _route(self, policy: Policy) -> tuple[Tier, ...]:
        return policy.tiers or self._names

    def _walk(self, entries: list[Entry], policy: Policy, at: int) -> None:
        """Take posts of one policy through its tiers, from one of them on."""
        route = self._route(policy)
        for index in range(at, len(route)):
            if not entries:
                return
            name = route[index]
            if name == "safeguard":
                self._safeguard.ask(entries, policy)
                return
            if name == TIER:
                entries = self._look_up(entries, policy)
                continue
            tier = self._tiers.get(name)
            if tier is None or not tier.wants(policy):
                continue
            if tier.blocking:
                self._worker.put(tier, policy, index, entries)
                return
            began_s = self._clock.monotonic_s()
            outcomes = tier.look([entry.request.post for entry in entries], policy)
            duration_us = self._share_us(began_s, len(entries))
            entries = self._sort(name, entries, outcomes, duration_us)
        if entries:
            self.give_up(entries, None, ())

    def _share_us(self, began_s: float, count: int) -> int:
        return round((self._clock.monotonic_s() - began_s) * 1e6 / count)

    def _looked(self, looked: Looked[Entry]) -> None:
        """Go on with what the thread has looked at."""
        name = self._route(looked.policy)[looked.at]
        entries = self._sort(name, looked.items, looked.outcomes, looked.duration_us)
        self._walk_on(entries, looked.policy, looked.at + 1)

    def _sort(
        self, name: str, entries: Sequence[Entry], outcomes: Sequence[Outcome], duration_us: int
    ) -> list[Entry]:
        """Deliver what a tier settled; return the rest, its step noted."""
        assert len(outcomes) == len(entries), "a tier has one outcome for each post"
        rest: list[Entry] = []
        settled: list[tuple[Entry, Judgement]] = []
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
                judgement = _judgement(entry, outcome.answer, provenance, now_ns)
                judgement.confidence = outcome.confidence
                judgement.confidence_method = outcome.confidence_method
                settled.append((entry, judgement))
                continue
            # What is alike of a list is made once.
            if entry.steps is not before or trail[-1].reason != outcome.reason:
                before = entry.steps
                trail = (*before, TierStep(name, "escalated", outcome.reason, duration_us))
            entry.steps = trail
            rest.append(entry)
        self._metrics.count_tier(name, settled=len(settled), escalated=len(rest))
        self.settle(settled)
        return rest

    # Duplicates

    def _look_up(self, entries: list[Entry], policy: Policy) -> list[Entry]:
        """Deliver what is known, have what is in flight waited for, and return what is new."""
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
        self, entries: Sequence[Entry], step: TierStep | None, degraded: tuple[str, ...]
    ) -> None:
        """Deliver as undetermined what no tier settled; the policy says what to do with it."""
        now_ns = self._clock.wall_ns()
        settled = []
        for entry in entries:
            trail = entry.steps if step is None else (*entry.steps, step)
            provenance = Provenance(
                _NOBODY, _NOBODY, attempts=0, degraded=(*entry.degraded, *degraded), trail=trail
            )
            settled.append((entry, _judgement(entry, _UNDETERMINED, provenance, now_ns)))
        self.settle(settled)

    def settle(self, settled: Sequence[tuple[Entry, Judgement]]) -> None:
        """Deliver these, and all that waited for them."""
        if not settled:
            return
        groups: dict[_Deliver, list[Judgement]] = {}
        pop = self._entries.pop
        deliver: _Deliver | None = None
        group: list[Judgement] = []
        for entry, judgement in settled:
            pop(entry.request.id, None)
            if entry.deliver is not deliver:
                deliver = entry.deliver
                group = groups.setdefault(deliver, [])
            group.append(judgement)
            if entry.key is not None and self._shared.leave(entry):
                self._duplicates.learn(entry.key, judgement)
                if entry.followers:
                    self._follow(entry.followers.values(), judgement, groups)
        for each, judgements in groups.items():
            each(judgements)

    def _follow(
        self,
        followers: Collection[Entry],
        judgement: Judgement,
        groups: dict[_Deliver, list[Judgement]],
    ) -> None:
        """Give a leader's answer, or its error, to all that joined it."""
        now_s, now_ns = self._clock.monotonic_s(), self._clock.wall_ns()
        known = Known.of(judgement)
        for entry in followers:
            self._entries.pop(entry.request.id, None)
            if known is None:
                made = _judgement(entry, None, None, now_ns)
                made.error = judgement.error
            else:
                us = round((now_s - entry.since_s) * 1e6)
                made = repeat(entry, known, how="joins", us=us, now_ns=now_ns)
            groups.setdefault(entry.deliver, []).append(made)
        self._metrics.count_tier(TIER, settled=len(followers))


def _judgement(
    entry: Entry, answer: Answer | None, provenance: Provenance | None, now_ns: int
) -> Judgement:
    return Judgement(entry.request, answer, None, provenance, None, None, now_ns, now_ns)
