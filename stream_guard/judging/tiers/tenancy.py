"""What requests cost their tenants, and what becomes of those past a quota: the door of the model.

Each request of a lane gets an estimate of its tokens, by which lanes and tenants share the engine. A tenant past its
quota waits here (``delay``), is asked once at low effort (``low_effort``), or is not asked (``undetermined``). What
waits here is in no queue of the engine, and does not count as a post that the judge cannot keep up with.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from typing import TYPE_CHECKING, Final

from stream_guard.judging.lanes.estimate import TokenEstimate
from stream_guard.judging.lanes.quotas import Quotas

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from prometheus_client import Counter

    from stream_guard.core.clock import Clock
    from stream_guard.judging.contract import Judgement, JudgeRequest
    from stream_guard.judging.tiers.tiered_request import TieredRequest
    from stream_guard.policies.lanes import Lane, Past
    from stream_guard.telemetry.metrics import Metrics

__all__ = ["DELAYED", "LOW_EFFORT", "UNDETERMINED", "Tenancy"]

DELAYED: Final = "quota_delayed"
LOW_EFFORT: Final = "quota_low_effort"
UNDETERMINED: Final = "quota_undetermined"
"""What ``provenance.degraded`` says of a post past its tenant's quota."""
_LABEL_CHARACTERS_MAX: Final = 80
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

    def price(self, request: JudgeRequest, lane: Lane) -> None:
        """Write a request's estimated tokens into it, and count them for :meth:`show`."""
        request.tokens = tokens = self._estimate.of(request)
        self._unshown[lane.name] = self._unshown.get(lane.name, 0) + tokens
        top = self._metrics.tenant_tokens
        if top.shown:
            top.add((lane.name, (request.post.tenant or "")[:_LABEL_CHARACTERS_MAX]), tokens)

    def show(self) -> None:
        """Put the tokens that were counted into the metrics: once for a list of requests."""
        for name, tokens in self._unshown.items():
            counter = self._lane_tokens.get(name)
            if counter is None:  # a label lookup costs a microsecond
                counter = self._lane_tokens[name] = self._metrics.lane_tokens.labels(name)
            counter.inc(tokens)
        self._unshown.clear()

    def admit(self, entry: TieredRequest, lane: Lane) -> Past | None:
        """Price a request and take its tokens out of its tenant's quota; return what becomes of it if it is past it.

        With ``delay`` it is kept, and passed to ``release`` later.
        """
        request = entry.request
        self.price(request, lane)
        quota = lane.quota_of(request.post.tenant)
        if quota is None:
            return None
        now_s = self._clock.monotonic_s()
        wait_s = self._quotas.take(
            _key(request, lane), quota, request.tokens, now_s, delay_s_max=self._delay_s_max
        )
        if wait_s == 0:
            return None
        past = quota.past
        if past == "delay" and wait_s > self._delay_s_max:
            past = "low_effort"
        self._metrics.quota_posts.labels(lane.name, past).inc()
        if past == "delay":
            request.delayed = True
            heapq.heappush(self._held, (now_s + wait_s, next(self._numbers), entry))
            self._sweep()
            self._wait()
        return past

    def spend(self, request: JudgeRequest, lane: Lane) -> None:
        """Price a further rung of the ladder; what it costs is taken from the quota, and never waits."""
        self.price(request, lane)
        quota = lane.quota_of(request.post.tenant)
        if quota is not None:
            now_s = self._clock.monotonic_s()
            self._quotas.spend(_key(request, lane), quota, request.tokens, now_s)

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


def _key(request: JudgeRequest, lane: Lane) -> tuple[str, str | None]:
    return lane.name, request.post.tenant
