"""The last tier: asks the model's judge, rung by rung, or leaves it out under pressure or past a tenant's quota.

The trail names the reason of each further rung, and of each post that is left out.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Protocol

from stream_guard.judging.contract import TierStep
from stream_guard.judging.tiers.ladder import Climb, step_of, with_trail
from stream_guard.judging.tiers.pressure import EFFORT, NAMES, NORMAL, SEVERE_ONLY
from stream_guard.judging.tiers.tenancy import DELAYED, LOW_EFFORT, UNDETERMINED, Tenancy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.core.clock import Clock
    from stream_guard.judging.contract import (
        Judge,
        Judgement,
        JudgeRequest,
        Provenance,
        TierOutcome,
    )
    from stream_guard.judging.tiers.ladder import Ladder
    from stream_guard.judging.tiers.pressure import Pressure
    from stream_guard.judging.tiers.tiered_request import TieredRequest
    from stream_guard.policies.policy import Policy
    from stream_guard.telemetry.metrics import Metrics


class Desk(Protocol):
    """The cascade, as this tier sees it."""

    def find(self, request_id: str) -> TieredRequest | None:
        """Return the request in flight with this id; None if it was cancelled."""

    def settle(self, settled: Sequence[tuple[TieredRequest, Judgement]]) -> None:
        """Deliver these judgements."""

    def give_up(
        self, entries: Sequence[TieredRequest], step: TierStep | None, degraded: tuple[str, ...]
    ) -> None:
        """Deliver these as undetermined, since no tier settled them."""


class Safeguard:
    """Asks the model's judge.

    Args:
        inner: that judge.
        ladder: how to ask, and when to ask again.
        pressure: what to leave out now.
        clock: for quotas.
        metrics: counts outcomes.
        desk: settles posts.
        delay_s_max: the longest that a quota delays a post, in s.
    """

    def __init__(
        self,
        inner: Judge,
        ladder: Ladder,
        pressure: Pressure,
        clock: Clock,
        metrics: Metrics,
        desk: Desk,
        delay_s_max: float,
    ) -> None:
        self._inner = inner
        self._ladder = ladder
        self._pressure = pressure
        self._metrics = metrics
        self._desk = desk
        self._tenancy = Tenancy(clock, metrics, delay_s_max, self._delayed)

    def ask(self, entries: list[TieredRequest], policy: Policy) -> None:
        """Give posts to the model's judge, or leave it out under pressure, or past a tenant's quota."""
        # A list comes from one snapshot of the routes or, around a reload, from two.
        if entries[0].request.lane is not None or entries[-1].request.lane is not None:
            entries = self._within_quotas(entries, policy)
        if entries:
            self._ask(entries, policy)

    def forget(self, entry: TieredRequest) -> None:
        """Let go of a cancelled request."""
        if entry.request.delayed:
            self._tenancy.forget(entry)

    def close(self) -> None:
        """Let go of all."""
        self._tenancy.close()

    def _within_quotas(self, entries: list[TieredRequest], policy: Policy) -> list[TieredRequest]:
        """Return what may be asked now. What is past a quota comes later, is asked for less, or is given up."""
        past = self._tenancy.admit(entries)
        self._tenancy.show()
        if not past:
            return entries
        passed, refused = [], []
        for entry in entries:
            why = past.get(entry.request.id)
            if why == "undetermined":
                refused.append(entry)
            elif why != "delay":
                if why == "low_effort":
                    entry.degraded = (LOW_EFFORT, *_lowered(policy))
                    _lower(entry, policy)
                passed.append(entry)
        if refused:
            step = TierStep("safeguard", "skipped", "quota:undetermined", 0)
            self._metrics.count_tier("safeguard", skipped=len(refused))
            self._desk.give_up(refused, step, (UNDETERMINED,))
        return passed

    def _delayed(self, entries: list[TieredRequest]) -> None:
        """Ask for posts whose delay is over."""
        by_policy: dict[str, list[TieredRequest]] = {}
        for entry in entries:
            entry.degraded = (DELAYED,)
            by_policy.setdefault(entry.request.policy.sha256, []).append(entry)
        for group in by_policy.values():
            self._ask(group, group[0].request.policy)

    def _ask(self, entries: list[TieredRequest], policy: Policy) -> None:
        level = self._pressure.level
        if level != NORMAL:
            severe = level == SEVERE_ONLY and self._ladder.is_severe(policy)
            if level >= SEVERE_ONLY and not severe:
                self._leave_out(entries, level)
                return
            lowered = _lowered(policy)
            if lowered:
                for entry in entries:
                    if LOW_EFFORT not in entry.degraded:
                        entry.degraded = (*entry.degraded, *lowered)
                        _lower(entry, policy)
        for entry in entries:
            entry.asked = True
        self._inner.submit([entry.request for entry in entries], self._judged)

    def _leave_out(self, entries: list[TieredRequest], level: int) -> None:
        step = TierStep("safeguard", "skipped", f"pressure:{NAMES[level]}", 0)
        self._metrics.count_tier("safeguard", skipped=len(entries))
        self._desk.give_up(entries, step, ("safeguard_skipped",))

    def _judged(self, judgements: Sequence[Judgement]) -> None:
        """Settle what the judge decided; ask again on a higher rung where that pays."""
        self._tenancy.learn(judgements)
        settled: list[tuple[TieredRequest, Judgement]] = []
        again: list[JudgeRequest] = []
        outcomes: Counter[tuple[str, TierOutcome]] = Counter()
        # Equal parts of a list are made once: the judge's provenance, the steps before it, its step, and the result.
        alike: tuple[Provenance, tuple[TierStep, ...], TierStep, Provenance] | None = None
        for judgement in judgements:
            entry = self._desk.find(judgement.request.id)
            if entry is None:  # cancelled, but delivered anyway
                continue
            climb = entry.climb
            below = None if climb is None or climb.best is None else climb.best.answer
            doubt = self._ladder.doubt(judgement, below)
            climbs = doubt is not None and self._climb(entry, judgement)
            step = step_of(judgement, doubt, climbs=climbs)
            outcomes[step.tier, step.outcome] += 1
            if climbs:
                entry.steps = (*entry.steps, step)
                again.append(entry.request)
                continue
            if climb is not None:
                climb.add(judgement)
                judgement = climb.end(judgement)  # noqa: PLW2901 - what the ladder ends with
            given = judgement.provenance
            if given is None:
                pass
            elif entry.degraded:
                judgement.provenance = with_trail(given, (*entry.steps, step), entry.degraded)
            else:
                if alike is None or alike[:3] != (given, entry.steps, step):
                    whole = with_trail(given, (*entry.steps, step))
                    alike = (given, entry.steps, step, whole)
                judgement.provenance = alike[3]
            settled.append((entry, judgement))
        for (tier, outcome), count in outcomes.items():
            self._metrics.count_tier(tier, **{outcome: count})
        self._desk.settle(settled)
        if again:
            self._tenancy.show()
            self._inner.submit(again, self._judged)

    def _climb(self, entry: TieredRequest, judgement: Judgement) -> bool:
        """Prepare a request for its next rung; return False if there is none, or pressure leaves it out."""
        request = entry.request
        rungs = self._ladder.rungs(request.policy)
        if entry.rung + 1 >= len(rungs):
            return False
        if self._pressure.level >= EFFORT or LOW_EFFORT in entry.degraded:
            entry.degraded = (*entry.degraded, "ladder_cut")
            return False
        if entry.climb is None:
            entry.climb = Climb()
        entry.climb.add(judgement)
        entry.rung += 1
        # The higher rung replaces the lowered effort.
        entry.degraded = (DELAYED,) if DELAYED in entry.degraded else ()
        rung = rungs[entry.rung]
        request.effort, request.reasoning_tokens_max = rung.effort, rung.reasoning_tokens_max
        request.decoding = rung.decoding
        if request.lane is not None:
            self._tenancy.spend(request, request.lane)
        return True


def _lower(entry: TieredRequest, policy: Policy) -> None:
    """Let a request be asked once, at low effort."""
    entry.rung = -1
    entry.request.effort = "low"
    entry.request.decoding = policy.decoding._replace(samples=1)


def _lowered(policy: Policy) -> tuple[str, ...]:
    """Return what is left out of a policy's first rung under pressure, as ``provenance.degraded`` names it."""
    lowered = () if policy.effort == "low" else ("effort_lowered",)
    return lowered if policy.decoding.samples == 1 else (*lowered, "samples_lowered")
