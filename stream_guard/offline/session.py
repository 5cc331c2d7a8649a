"""Judges posts without Kafka, with the parts of the service: tiers, ladder, supervisor, engine.

Two rounds share an engine. They never share an answer.
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
    from stream_guard.judging.families.family import Exchange
    from stream_guard.policies.policy import Policy
    from stream_guard.settings import Settings

__all__ = ["OfflineJudge", "SourceLine", "judge_all", "verdict_of"]


class SourceLine(NamedTuple):
    """The source of a post from a file: the file's name is its topic, its line or row is its offset."""

    topic: str
    offset: int
    timestamp: int
    partition: int = 0
    key: bytes | None = None
    value: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()


def verdict_of(judgement: Judgement, source: str, number: int) -> dict[str, Any]:
    """Return the verdict that the service would publish for a judgement that has an answer.

    Args:
        judgement: as the judge delivered it.
        source: name of the file.
        number: line or row, from 1.
    """
    started_ms, finished_ms = judgement.started_ns // 1_000_000, judgement.finished_ns // 1_000_000
    return build_verdict(
        SourceLine(source, number, finished_ms),
        judgement,
        consumed_ms=started_ms,
        published_ms=finished_ms,
    )


class OfflineJudge:
    """One engine for any number of rounds. An async context manager that stops the engine.

    Args:
        settings: the sections ``engine`` and ``cascade``.
        judge: the model's judge; by default that of the settings.
        listen: receives each prompt and completion.

    Raises:
        EngineError: the engine is not installed.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        judge: Judge | None = None,
        listen: Callable[[Exchange], None] | None = None,
    ) -> None:
        self._settings = settings
        self._clock = SystemClock()
        self._metrics = Metrics(CollectorRegistry())
        self._shared = _SharedJudge(
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
        await self._shared.inner.close()

    def lend(self) -> Judge:
        """Return the model's judge for other work on the same engine. Closing it does nothing."""
        return self._shared

    def describe(self) -> Mapping[str, str]:
        """Return model, revision and engine. Call it after the first round has started."""
        return self._shared.inner.describe()

    async def judge(
        self,
        requests: Sequence[JudgeRequest],
        *,
        ready: Callable[[], None] = lambda: None,
        progress: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> list[Judgement]:
        """Judge one round, and return the judgements in the order of the requests.

        Each round starts with an empty cache of duplicates.

        Args:
            requests: each with an id of its own.
            ready: called when the engine is ready for their policies.
            progress: called with the number of judged requests and of all requests.

        Raises:
            EngineError: the engine does not start, or crashes too often.
            PolicyError: the judge cannot use a policy.
            SettingsError: the settings of a tier are wrong.
        """
        policies = _policies_of([request.policy for request in requests])
        cascade = make_cascade(self._settings, self._clock, self._metrics, self._shared)
        try:
            await cascade.start(policies)
            ready()
            return await judge_all(cascade, requests, progress)
        finally:
            await cascade.close()


def _policies_of(policies: Sequence[Policy]) -> PolicySet:
    # By id: a round never holds two versions of one policy.
    found = {policy.id: policy for policy in policies}
    return PolicySet(found, default=tuple(found))


async def judge_all(
    judge: Judge,
    requests: Sequence[JudgeRequest],
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> list[Judgement]:
    """Submit requests to a started judge, wait, and return the judgements in the order of the requests.

    Args:
        judge: already started.
        requests: each with an id of its own.
        progress: called with the number of judged requests and of all requests.

    Raises:
        EngineError: the judge died.
    """
    outcomes: dict[str, Judgement] = {}
    finished = asyncio.Event()

    def deliver(judgements: Sequence[Judgement]) -> None:
        outcomes.update((judgement.request.id, judgement) for judgement in judgements)
        progress(len(outcomes), len(requests))
        if len(outcomes) == len(requests):
            finished.set()

    if not requests:
        return []
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
    return [outcomes[request.id] for request in requests]


class _SharedJudge:
    """A judge that several cascades use in turn: the first one starts it, and only the owner closes it."""

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
        """Do nothing: the owner closes the judge."""
