"""Asks people's decisions before any other tier, and once more before a judgement is delivered.

The second look counts: a decision that comes while the model thinks still wins. Without decisions, both looks cost one
comparison for each list.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from stream_guard.judging.contract import Answer, Decided, Judgement, Provenance, TierStep
from stream_guard.records.verdict_changes import HUMAN, PERSON

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from stream_guard.core.clock import Clock
    from stream_guard.judging.contract import ContextT, Judge, JudgeRequest
    from stream_guard.judging.human.table import DecisionTable
    from stream_guard.policies.policy import PolicySet
    from stream_guard.records.decision import Decision
    from stream_guard.telemetry.metrics import Metrics

__all__ = ["HumanFirst", "answer"]


def answer(request: JudgeRequest[ContextT], decision: Decision, now_ns: int) -> Judgement[ContextT]:
    """Return the judgement of a request that a person decided.

    Args:
        request: the request.
        decision: with an outcome.
        now_ns: Unix time in ns.
    """
    outcome = decision.outcome
    assert outcome is not None, "only such decisions answer posts"
    step = TierStep(HUMAN, "settled", decision.kind, 0)
    return Judgement(
        request,
        Answer(
            outcome.decision,
            outcome.category,
            outcome.rule_ids,
            decision.reason,
            "not_applicable",
            outcome.labels,
        ),
        provenance=Provenance(tier=HUMAN, model=PERSON, attempts=0, trail=(step,)),
        started_ns=now_ns,
        finished_ns=now_ns,
        decided=Decided(
            decision.id,
            decision.decided_at,
            outcome.action,
            outcome.severity,
            decision.valid_until,
        ),
    )


class HumanFirst:
    """A :class:`stream_guard.judging.contract.Judge` that answers what people decided, and asks another for the rest.

    Args:
        inner: the judge of the rest.
        table: the standing decisions.
        clock, metrics: the parts.
    """

    def __init__(
        self, inner: Judge, table: DecisionTable, *, clock: Clock, metrics: Metrics
    ) -> None:
        self._inner = inner
        self._table = table
        self._clock = clock
        self._metrics = metrics
        # One for each callback: the inner judge delivers in one list what shares a callback.
        self._delivers: dict[Any, Any] = {}
        self._failed: asyncio.Future[BaseException] | None = None

    async def start(self, policies: PolicySet) -> None:
        """Start the inner judge."""
        await self._inner.start(policies)

    async def prepare(self, policies: PolicySet) -> None:
        """Prepare the inner judge."""
        await self._inner.prepare(policies)

    def submit(
        self,
        requests: Sequence[JudgeRequest[ContextT]],
        deliver: Callable[[Sequence[Judgement[ContextT]]], None],
    ) -> None:
        """Deliver at once what people decided; hand over the rest, and look again when it comes back."""
        rest, decided = self._split(requests)
        if rest:
            self._inner.submit(rest, self._checked(deliver))
        if decided:
            self._metrics.count_tier(HUMAN, settled=len(decided))
            deliver(decided)

    def _checked(
        self, deliver: Callable[[Sequence[Judgement[ContextT]]], None]
    ) -> Callable[[Sequence[Judgement[ContextT]]], None]:
        checked: Callable[[Sequence[Judgement[ContextT]]], None] | None = self._delivers.get(
            deliver
        )
        if checked is None:

            def checked(judgements: Sequence[Judgement[ContextT]]) -> None:
                # The inner judge may deliver from a callback of the event loop, where an error would only be logged.
                try:
                    looked = self._look_again(judgements)
                except Exception as error:  # noqa: BLE001 - wait_failed() returns it
                    self._fail(error)
                    return
                deliver(looked)

            self._delivers[deliver] = checked
        return checked

    def _split(
        self, requests: Sequence[JudgeRequest[ContextT]]
    ) -> tuple[Sequence[JudgeRequest[ContextT]], list[Judgement[ContextT]]]:
        if not self._table.version:
            return requests, []
        find, now_ns = self._table.find, self._clock.wall_ns()
        now_ms = now_ns // 1_000_000
        rest: list[JudgeRequest[ContextT]] = []
        decided: list[Judgement[ContextT]] = []
        for request in requests:
            decision = find(request.post, request.policy, now_ms)
            if decision is None:
                rest.append(request)
            else:
                decided.append(answer(request, decision, now_ns))
        return rest, decided

    def _look_again(
        self, judgements: Sequence[Judgement[ContextT]]
    ) -> Sequence[Judgement[ContextT]]:
        if not self._table.version:
            return judgements
        find, now_ns = self._table.find, self._clock.wall_ns()
        now_ms = now_ns // 1_000_000
        looked: list[Judgement[ContextT]] = []
        replaced = 0
        for judgement in judgements:
            request = judgement.request
            decision = find(request.post, request.policy, now_ms)
            if decision is None:
                looked.append(judgement)
            else:
                looked.append(answer(request, decision, now_ns))
                replaced += 1
        if replaced:
            self._metrics.count_tier(HUMAN, settled=replaced)
        return looked

    def cancel(self, requests: Sequence[JudgeRequest[Any]]) -> None:
        """Cancel what the inner judge still has."""
        self._inner.cancel(requests)

    def in_flight(self) -> int:
        """Return how many requests the inner judge has."""
        return self._inner.in_flight()

    async def wait_failed(self) -> BaseException:
        """Return the error of the inner judge, or the one after which nobody knows what people decided."""
        if self._failed is None:
            self._failed = asyncio.get_running_loop().create_future()
        inner = asyncio.ensure_future(self._inner.wait_failed())
        try:
            await asyncio.wait([inner, self._failed], return_when=asyncio.FIRST_COMPLETED)
            return self._failed.result() if self._failed.done() else inner.result()
        finally:
            inner.cancel()

    def _fail(self, error: BaseException) -> None:
        if self._failed is None:
            self._failed = asyncio.get_running_loop().create_future()
        if not self._failed.done():
            self._failed.set_result(error)

    def describe(self) -> Mapping[str, str]:
        """Describe the inner judge."""
        return self._inner.describe()

    async def close(self) -> None:
        """Close the inner judge."""
        await self._inner.close()
