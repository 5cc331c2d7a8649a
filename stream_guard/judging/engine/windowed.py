"""Asks the engine about a post that is longer than its context: window by window, a few at the same time."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from stream_guard.core.errors import PromptError
from stream_guard.judging.contract import Answer, Judgement
from stream_guard.judging.engine.client import in_thread
from stream_guard.judging.windows import fit_post, merge_windows

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from stream_guard.judging.contract import JudgeRequest
    from stream_guard.judging.engine.asking import Asker
    from stream_guard.judging.engine.plans import Plan
    from stream_guard.judging.families.family import Family
    from stream_guard.settings import EngineSettings

__all__ = ["WINDOWS_AT_ONCE", "ask_fitted"]

WINDOWS_AT_ONCE: Final = 4
"""Windows of one post in the engine at the same time, so that one post does not fill it."""


async def ask_fitted(
    asker: Asker,
    family: Family,
    settings: EngineSettings,
    request: JudgeRequest,
    plan: Plan,
    tokens_max: int,
    started_ns: int,
) -> Judgement | None:
    """Return the judgement of a post that does not fit whole, or None if the engine has died.

    ``engine.request_timeout_s`` bounds all windows together. A window that is not judged by then is undetermined.

    Args:
        asker: asks the engine about one prompt.
        family: of the model.
        settings: timeout and overlap.
        request: what to judge.
        plan: how to ask.
        tokens_max: of a prompt.
        started_ns: when the request was admitted, Unix time in ns.

    Raises:
        EngineHungError: the engine hangs.
        EngineError: the engine is dead.
    """
    try:
        fitted = await in_thread(
            partial(
                fit_post,
                request.post,
                plan.prefix,
                family,
                tokens_max,
                settings.window_overlap_tokens,
            )
        )
    except PromptError as error:
        return Judgement(request, error=error, started_ns=started_ns, finished_ns=time.time_ns())
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + settings.request_timeout_s
    gate = asyncio.Semaphore(WINDOWS_AT_ONCE)

    async def ask(number: int) -> Judgement | None:
        async with gate:
            left_s = deadline_s - loop.time()
            window = replace(request, post=fitted.posts[number])
            if left_s <= 0:
                late = Answer("undetermined", parse_status="timeout")
                return Judgement(window, late, started_ns=started_ns, finished_ns=time.time_ns())
            return await asker.ask(window, fitted.prompts[number], plan, started_ns, left_s)

    judged = await _together([ask(number) for number in range(len(fitted.prompts))])
    judgements = [each for each in judged if each is not None]
    if len(judgements) < len(judged):
        return None
    return merge_windows(request, fitted, tokens_max, judgements)


async def _together(
    asked: Sequence[Coroutine[None, None, Judgement | None]],
) -> list[Judgement | None]:
    """Await all; if one fails, stop the others."""
    tasks = [asyncio.create_task(each) for each in asked]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
