"""Judges past posts again, with the tiers and the model of the service but without a consumer group."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Self

from prometheus_client import CollectorRegistry

from stream_guard.core.clock import SystemClock
from stream_guard.core.errors import EngineError
from stream_guard.judging.assembly import make_cascade, make_judge
from stream_guard.judging.contract import JudgeRequest
from stream_guard.judging.tiers.ladder import Ladder
from stream_guard.offline.session import judge_all
from stream_guard.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stream_guard.judging.contract import Judge, Judgement
    from stream_guard.policies.policy import Policy, PolicySet
    from stream_guard.records.post import Post
    from stream_guard.settings import Settings


class AuditJudge:
    """Judges lists of posts; an async context manager.

    Args:
        settings: the sections ``engine`` and ``cascade``.
        policies: all policies to judge by.
        duplicates: whether the tier ``duplicates`` may repeat an answer, as in the service. Without
            it, the model sees every post.
        inner: the model's judge; by default that of the settings.

    Raises:
        EngineError: on entering, the engine does not start.
    """

    def __init__(
        self,
        settings: Settings,
        policies: PolicySet,
        *,
        duplicates: bool = True,
        inner: Judge | None = None,
    ) -> None:
        self._settings = settings
        self._policies = policies
        cascade = settings.cascade
        if not duplicates:
            tiers = tuple(tier for tier in cascade.tiers if tier != "duplicates")
            settings = settings.model_copy(
                update={"cascade": cascade.model_copy(update={"tiers": tiers})}
            )
        self._judge = make_cascade(
            settings,
            SystemClock(),
            Metrics(CollectorRegistry()),
            inner or make_judge(settings.engine, Ladder(cascade).rungs),
        )
        self._ids = itertools.count(1)

    async def __aenter__(self) -> Self:
        timeout_s = self._settings.engine.start_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                await self._judge.start(self._policies)
        except TimeoutError as error:
            await self._judge.close()
            message = (
                f"engine.start_timeout_s: the engine was not ready within {timeout_s:g} s; "
                "raise it, or see the engine's log"
            )
            raise EngineError(message) from error
        except BaseException:
            await self._judge.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._judge.close()

    async def judge(self, posts: Iterable[tuple[Post, Policy]]) -> list[Judgement]:
        """Return the judgement of each post, in the order of the posts.

        Raises:
            EngineError: the engine died.
        """
        requests = [JudgeRequest(str(next(self._ids)), post, policy) for post, policy in posts]
        return await judge_all(self._judge, requests)
