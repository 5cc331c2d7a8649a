"""Judges posts without Kafka, by the very parts that the service is made of: tiers, ladder, supervisor, engine.

What it must never do: judge otherwise than the service would. Two rounds share an engine, and never an answer.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from prometheus_client import CollectorRegistry

from stream_guard.core.clock import SystemClock
from stream_guard.judging.assembly import make_cascade, make_lasting_judge
from stream_guard.judging.verdict import build_verdict
from stream_guard.policies.policy import PolicySet
from stream_guard.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from stream_guard.judging.contract import Judge, Judgement, JudgeRequest
    from stream_guard.judging.families.harmony.transcript import Listener
    from stream_guard.policies.policy import Policy
    from stream_guard.settings import Settings

__all__ = ["OfflineJudge", "SourceLine", "verdict_of"]


class SourceLine(NamedTuple):
    """Where a post came from that is in no topic: a file's name as its topic, its line or row as its offset."""

    topic: str
    offset: int
    timestamp: int
    partition: int = 0
    key: bytes | None = None
    value: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()


def verdict_of(judgement: Judgement, source: str, number: int) -> dict[str, Any]:
    """Return the verdict that the service would publish, of a judgement with an answer.

    Args:
        judgement: as delivered.
        source: name of the file.
        number: of the line or row, from 1.
    """
    started_ms, finished_ms = judgement.started_ns // 1_000_000, judgement.finished_ns // 1_000_000
    return build_verdict(
        SourceLine(source, number, finished_ms),
        judgement,
        consumed_ms=started_ms,
        published_ms=finished_ms,
    )


class OfflineJudge:
    """One engine for any number of rounds; an async context manager that stops it.

    Args:
        settings: the sections ``engine`` and ``cascade``.
        judge: the one that reasons, instead of the one that the settings name.
        listen: told of each prompt and completion.

    Raises:
        EngineError: the engine is not installed.
    """

    def __init__(
        self, settings: Settings, *, judge: Judge | None = None, listen: Listener | None = None
    ) -> None:
        self._settings = settings
        self._clock = SystemClock()
        self._metrics = Metrics(CollectorRegistry())
        self._lent = _Lent(
            judge
            or make_lasting_judge(
                settings, self._clock, self._metrics, lambda _: None, listen=listen
            )
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._lent.inner.close()

    def describe(self) -> Mapping[str, str]:
        """Name model, revision and engine, once a round has begun."""
        return self._lent.inner.describe()

    async def judge(
        self,
        requests: Sequence[JudgeRequest],
        *,
        ready: Callable[[], None] = lambda: None,
        progress: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> list[Judgement]:
        """Judge these, and return their outcomes in the same order; nothing is remembered from the round before.

        Args:
            requests: with ids of their own.
            ready: called when the engine is ready for their policies.
            progress: called with how many of how many are judged.

        Raises:
            EngineError: the engine does not start, or dies too often.
            PolicyError: a policy cannot be judged by.
            SettingsError: a tier cannot be made of its settings.
        """
        policies = _policies_of([request.policy for request in requests])
        cascade = make_cascade(self._settings, self._clock, self._metrics, self._lent)
        try:
            await cascade.start(policies)
            ready()
            outcomes = await _outcomes(cascade, requests, progress)
        finally:
            await cascade.close()
        return [outcomes[request.id] for request in requests]


def _policies_of(policies: Sequence[Policy]) -> PolicySet:
    # Keyed by object: two versions of one policy never meet in one round.
    found = {policy.id: policy for policy in policies}
    return PolicySet(found, default=tuple(found))


async def _outcomes(
    judge: Judge, requests: Sequence[JudgeRequest], progress: Callable[[int, int], None]
) -> dict[str, Judgement]:
    outcomes: dict[str, Judgement] = {}
    finished = asyncio.Event()

    def deliver(judgements: Sequence[Judgement]) -> None:
        outcomes.update((judgement.request.id, judgement) for judgement in judgements)
        progress(len(outcomes), len(requests))
        if len(outcomes) == len(requests):
            finished.set()

    if not requests:
        return outcomes
    judge.submit(requests, deliver)
    died = asyncio.create_task(judge.wait_failed())
    done = asyncio.create_task(finished.wait())
    try:
        await asyncio.wait([died, done], return_when=asyncio.FIRST_COMPLETED)
        if not done.done():
            raise died.result()
    finally:
        for task in (died, done):
            task.cancel()
        await asyncio.gather(died, done, return_exceptions=True)
    return outcomes


class _Lent:
    """A judge lent to one cascade after another: started with the first, and closed by its owner alone."""

    def __init__(self, inner: Judge) -> None:
        self.inner = inner
        self.submit, self.cancel = inner.submit, inner.cancel
        self.in_flight, self.wait_failed = inner.in_flight, inner.wait_failed
        self.describe, self.prepare = inner.describe, inner.prepare
        self._started = False

    async def start(self, policies: PolicySet) -> None:
        if self._started:
            await self.inner.prepare(policies)
            return
        await self.inner.start(policies)
        self._started = True

    async def close(self) -> None:
        """Leave it to its owner."""
