"""What requests cost their tenants, and what becomes of those past a quota: the door of the model.

Each request of a lane gets an estimate of its tokens, by which lanes and tenants share the engine. A tenant past its
quota waits here (``delay``), is asked once at low effort (``low_effort``), or is not asked (``undetermined``). What
waits here is in no queue of the engine, and does not count as a post that the judge cannot keep up with.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import itertools
from typing import TYPE_CHECKING, Final, TypeAlias

from stream_guard.judging.lanes.estimate import TokenEstimate
from stream_guard.judging.lanes.quotas import Quotas

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from prometheus_client import Counter

    from stream_guard.core.clock import Clock
    from stream_guard.judging.contract import Judgement, JudgeRequest
    from stream_guard.judging.tiers.tiered_request import TieredRequest
    from stream_guard.policies.lanes import Lane, Past, Quota
    from stream_guard.telemetry.metrics import Metrics

__all__ = ["DELAYED", "LOW_EFFORT", "UNDETERMINED", "Tenancy"]

DELAYED: Final = "quota_delayed"
LOW_EFFORT: Final = "quota_low_effort"
UNDETERMINED: Final = "quota_undetermined"
"""What ``provenance.degraded`` says of a post past its tenant's quota."""
_Key: TypeAlias = "tuple[str, str | None]"
"""A lane's name and a tenant."""
_KEY_CHARACTERS_MAX: Final = 128
"""A tenant may have any name that fits into a post, and many tenants are remembered."""
_SWEEP_MIN: Final = 1_000
_LEARNT_MAX: Final = 8
"""Answers of a list from which the estimate learns: an engine's lists are short, and a few of a long one are enough."""


class Tenancy:
    """Prices requests, and holds those that a quota delays.

    Args:
        clock, metrics: the parts.
        delay_s_max: the longest delay, in s; instead of a longer one a post is asked at low effort.
        release: called with requests whose delay is over.
    """

    def __init__(
        self,
        clock: Clock,
        metrics: Metrics,
        delay_s_max: float,
        release: Callable[[list[TieredRequest]], None],
    ) -> None:
        self._clock = clock
        self._metrics = metrics
        self._delay_s_max = delay_s_max
        self._release = release
        self._estimate = TokenEstimate()
        self._lane_tokens: dict[str, Counter] = {}
        self._unshown: dict[str, int] = {}  # by lane: tokens that are not in the metrics yet
        self._quotas = Quotas()
        self._numbers = itertools.count()
        self._held: list[tuple[float, int, TieredRequest]] = []
        self._sweep_at = _SWEEP_MIN
        self._timer: asyncio.TimerHandle | None = None

    def show(self) -> None:
        """Put the tokens that were counted into the metrics: once for a list of requests."""
        for name, tokens in self._unshown.items():
            counter = self._lane_tokens.get(name)
            if counter is None:  # a label lookup costs a microsecond
                counter = self._lane_tokens[name] = self._metrics.lane_tokens.labels(name)
            counter.inc(tokens)
        self._unshown.clear()

    def admit(self, entries: Sequence[TieredRequest]) -> dict[str, Past]:
        """Price requests under one policy, and take their tokens out of their tenants' quotas.

        Returns:
            What becomes of each that is past its quota, by request id. With ``delay`` it is kept here, and passed to
            ``release`` later.
        """
        self._estimate.price([entry.request for entry in entries])
        past: dict[str, Past] = {}
        spent: list[tuple[tuple[str, str], int]] = []
        now_s, take, unshown = self._clock.monotonic_s(), self._quotas.take, self._unshown
        for entry in entries:
            request = entry.request
            lane = request.lane
            if lane is None:
                continue
            name, tenant, tokens = lane.name, request.post.tenant, request.tokens
            key: _Key = (name, tenant)
            if tenant is None:
                spent.append(((name, ""), tokens))
            else:
                if len(tenant) > _KEY_CHARACTERS_MAX:
                    key = _key(request, lane)
                spent.append((key, tokens))  # type: ignore[arg-type] # it has a tenant
            unshown[name] = unshown.get(name, 0) + tokens
            quota = lane.quota_of(tenant) if lane.tenants else lane.quota
            if quota is not None:
                wait_s = take(key, quota, tokens, now_s, self._delay_s_max)
                if wait_s:
                    past[request.id] = self._past(entry, lane, quota, now_s, wait_s)
        self._metrics.tenant_tokens.add(spent)
        return past

    def _past(
        self, entry: TieredRequest, lane: Lane, quota: Quota, now_s: float, wait_s: float
    ) -> Past:
        """Return what becomes of a request past its quota, and keep it if it waits."""
        past = quota.past
        if past == "delay" and wait_s > self._delay_s_max:
            past = "low_effort"
        self._metrics.quota_posts.labels(lane.name, past).inc()
        if past == "delay":
            entry.request.delayed = True
            heapq.heappush(self._held, (now_s + wait_s, next(self._numbers), entry))
            self._sweep()
            self._wait()
        return past

    def spend(self, request: JudgeRequest, lane: Lane) -> None:
        """Price a further rung of the ladder; what it costs is taken from the quota, and never waits."""
        self._estimate.price((request,))
        key = _key(request, lane)
        name, tenant = key
        self._unshown[name] = self._unshown.get(name, 0) + request.tokens
        self._metrics.tenant_tokens.add((((name, tenant or ""), request.tokens),))
        quota = lane.quota_of(request.post.tenant)
        if quota is not None:
            self._quotas.spend(key, quota, request.tokens, self._clock.monotonic_s())

    def forget(self, entry: TieredRequest) -> None:
        """Give back what a request that was held, and is cancelled, took from its quota."""
        entry.request.delayed = False
        lane = entry.request.lane
        quota = None if lane is None else lane.quota_of(entry.request.post.tenant)
        if lane is not None and quota is not None:
            now_s = self._clock.monotonic_s()
            self._quotas.spend(_key(entry.request, lane), quota, -entry.request.tokens, now_s)

    def learn(self, judgements: Sequence[Judgement]) -> None:
        """Take the tokens that the answers had, to estimate the next ones; a judge may deliver none."""
        if not judgements or (
            judgements[0].request.lane is None and judgements[-1].request.lane is None
        ):
            return
        for judgement in judgements[:_LEARNT_MAX]:
            if judgement.provenance is not None:
                self._estimate.learn(judgement.request, judgement.provenance.output_tokens)

    def close(self) -> None:
        """Forget what is held."""
        self._held.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _sweep(self) -> None:
        """Drop cancelled requests, once they may be half of all."""
        if len(self._held) < self._sweep_at:
            return
        self._held = [one for one in self._held if one[2].request.delayed]
        heapq.heapify(self._held)
        self._sweep_at = max(_SWEEP_MIN, 2 * len(self._held))

    def _wait(self) -> None:
        """Come back when the first delay is over."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._held:
            wait_s = max(0.0, self._held[0][0] - self._clock.monotonic_s())
            self._timer = asyncio.get_running_loop().call_later(wait_s, self.release_due)

    def release_due(self) -> None:
        """Pass on what has waited for long enough."""
        due: list[TieredRequest] = []
        now_s = self._clock.monotonic_s()
        while self._held and self._held[0][0] <= now_s:
            entry = heapq.heappop(self._held)[2]
            if entry.request.delayed:
                entry.request.delayed = False
                entry.released_s = now_s
                due.append(entry)
        self._wait()
        if due:
            self._release(due)


def _key(request: JudgeRequest, lane: Lane) -> _Key:
    """Return what stands for a tenant in all that is remembered of tenants: its name, or the start and a digest."""
    tenant = request.post.tenant
    if tenant is not None and len(tenant) > _KEY_CHARACTERS_MAX:
        digest = hashlib.sha256(tenant.encode("utf-8", "surrogatepass")).hexdigest()
        tenant = f"{tenant[: _KEY_CHARACTERS_MAX - len(digest)]}{digest}"
    return lane.name, tenant
