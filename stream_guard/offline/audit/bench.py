"""Posts judged outside the stream: the same tiers and the same model, without a consumer group.

What it must never do: wait for ever for a judge that has died.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any, Self

from prometheus_client import CollectorRegistry

from stream_guard.core.clock import SystemClock
from stream_guard.core.errors import EngineError
from stream_guard.judging.assembly import make_cascade, make_judge
from stream_guard.judging.contract import JudgeRequest
from stream_guard.judging.tiers.ladder import Ladder
from stream_guard.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from stream_guard.judging.contract import Judgement
    from stream_guard.policies.policy import Policy, PolicySet
    from stream_guard.records.post import Post
    from stream_guard.settings import Settings


class Bench:
    """Judges lists of posts; an async context manager.

    Args:
        settings: the sections ``engine`` and ``cascade``.
        policies: by which is judged.
        repeats: whether an answer that is known is given again, as in the stream; else each post is asked about.

    Raises:
        EngineError: on entering, the engine does not start.
    """

    def __init__(self, settings: Settings, policies: PolicySet, *, repeats: bool = True) -> None:
        self._settings = settings
        self._policies = policies
        cascade = settings.cascade
        if not repeats:
            tiers = tuple(tier for tier in cascade.tiers if tier != "duplicates")
            settings = settings.model_copy(
                update={"cascade": cascade.model_copy(update={"tiers": tiers})}
            )
        self._judge = make_cascade(
            settings,
            SystemClock(),
            Metrics(CollectorRegistry()),
            make_judge(settings.engine, Ladder(cascade).rungs),
        )
        self._ids = itertools.count(1)

    async def __aenter__(self) -> Self:
        timeout_s = self._settings.engine.start_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                await self._judge.start(self._policies)
        except TimeoutError as error:
            await self._judge.close()
            message = f"the engine was not ready within {timeout_s:g} s (engine.start_timeout_s)"
            raise EngineError(message) from error
        except BaseException:
            await self._judge.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._judge.close()

    async def judge(self, posts: Iterable[tuple[Post, Policy, Any]]) -> list[Judgement]:
        """Return the judgement of each post, in any order; a request's context is what came with its post.

        Raises:
            EngineError: the engine has died.
        """
        requests = [
            JudgeRequest(str(next(self._ids)), post, policy, context=context)
            for post, policy, context in posts
        ]
        done: list[Judgement] = []
        ready = asyncio.Event()
        if not requests:
            return done

        def deliver(judgements: Sequence[Judgement]) -> None:
            done.extend(judgements)
            if len(done) == len(requests):
                ready.set()

        waiting = asyncio.ensure_future(ready.wait())
        failing = asyncio.ensure_future(self._judge.wait_failed())
        try:
            self._judge.submit(requests, deliver)
            await asyncio.wait({waiting, failing}, return_when=asyncio.FIRST_COMPLETED)
            if not ready.is_set():
                raise failing.result()
        finally:
            waiting.cancel()
            failing.cancel()
            await asyncio.gather(waiting, failing, return_exceptions=True)
        return done
