"""Runs each policy through the engine once before its first post, so that no post waits for a cold start."""

from __future__ import annotations

import itertools
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from stream_guard.core.errors import EngineError, PolicyError
from stream_guard.judging.engine.client import in_thread
from stream_guard.records.post import Post

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.judging.engine.client import VllmClient
    from stream_guard.judging.engine.plans import Attempt, Planner
    from stream_guard.judging.families.family import Family
    from stream_guard.judging.tiers.ladder import Rung
    from stream_guard.policies.policy import Policy

_log = structlog.get_logger(__name__)
_POST: Final = Post(id="", text="warm-up", sha256="", text_bytes=0)
_numbers = itertools.count()


class WarmUp:
    """Compiles constraints, and puts prefixes into the engine's cache.

    Args:
        client: a running engine.
        planner, family: of its model.
        model_len_max: longest prompt and completion together, in tokens.
    """

    def __init__(
        self, client: VllmClient, planner: Planner, family: Family, model_len_max: int
    ) -> None:
        self._client = client
        self._planner = planner
        self._family = family
        self._model_len_max = model_len_max

    async def run(self, policy: Policy, rungs: Sequence[Rung]) -> None:
        """Try a policy: its own rung with the whole prompt, the higher rungs with their constraints alone.

        Raises:
            PolicyError: the prompt leaves no room for an answer, or a hostile post can change its structure.
            EngineError: the engine cannot complete the prompt.
        """
        plan = self._planner.plan(policy)
        # It builds many prompts. In a thread, since the event loop judges other posts during a reload.
        await in_thread(partial(self._family.check_structure, policy, plan.prefix))
        prompt = self._family.prompt(_POST, plan.prefix)
        answer_max = plan.attempts[0].tokens_max
        if len(prompt) + answer_max > self._model_len_max:
            message = (
                f"policy {policy.id!r}: its prompt has {len(prompt)} tokens and the answer up to {answer_max}, more "
                f"than the engine's limit of {self._model_len_max}; raise engine.max_model_len, or shorten the policy"
            )
            raise PolicyError(message)
        for attempt in plan.attempts:
            await self._try(policy, prompt, attempt)
        for rung in rungs[1:]:
            higher = self._planner.plan(policy, *rung)
            if len(prompt) + higher.attempts[0].tokens_max > self._model_len_max:
                _log.warning(
                    "rung_does_not_fit",
                    policy=policy.id,
                    effort=rung.effort,
                    reasoning_tokens_max=rung.reasoning_tokens_max,
                    remedy="lower its budget in cascade.ladder, or raise engine.max_model_len",
                )
                continue
            # Few posts climb: a prompt of one token compiles the constraint, and the prefix stays uncached.
            for attempt in higher.attempts:
                await self._try(policy, prompt[:1], attempt)

    async def _try(self, policy: Policy, prompt: list[int], attempt: Attempt) -> None:
        params = attempt.params.clone()
        params.max_tokens = 1
        completion = await self._client.generate(prompt, params, f"warm-up-{next(_numbers)}", None)
        if completion.finish_reason not in ("length", "stop"):
            message = (
                f"policy {policy.id!r}: the engine cannot complete its prompt "
                f"(finish reason {completion.finish_reason}); vLLM's log says why"
            )
            raise EngineError(message)
