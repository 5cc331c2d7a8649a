"""Has the engine try a policy once, so that no post meets a cold start.

What it must never do: let a policy go live whose prompt leaves no room for an answer.
"""

from __future__ import annotations

import itertools
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from stream_guard.core.errors import EngineError, PolicyError
from stream_guard.judging.engine.client import in_thread
from stream_guard.judging.families.harmony.structure import check_structure
from stream_guard.records.post import Post

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.judging.engine.client import VllmClient
    from stream_guard.judging.engine.plans import Attempt, Planner
    from stream_guard.judging.families.harmony.prompt import PromptBuilder
    from stream_guard.judging.families.harmony.tokens import ControlTokens
    from stream_guard.judging.tiers.ladder import Rung
    from stream_guard.policies.policy import Policy

_log = structlog.get_logger(__name__)
_POST: Final = Post(id="", text="warm-up", sha256="", text_bytes=0)
_numbers = itertools.count()


class WarmUp:
    """Compiles grammars, and puts prefixes into the engine's cache.

    Args:
        client: a running engine.
        planner, builder, tokens: of its model; the last are its control tokens.
        model_len_max: the longest prompt and answer together, in tokens.
    """

    def __init__(
        self,
        client: VllmClient,
        planner: Planner,
        builder: PromptBuilder,
        tokens: ControlTokens,
        model_len_max: int,
    ) -> None:
        self._client = client
        self._planner = planner
        self._builder = builder
        self._tokens = tokens
        self._model_len_max = model_len_max

    async def run(self, policy: Policy, rungs: Sequence[Rung]) -> None:
        """Try a policy: the first rung, which is its own, with its whole prompt; of the others, the grammars.

        Raises:
            PolicyError: the prompt leaves no room for an answer.
            EngineError: the engine cannot complete it.
        """
        plan = self._planner.plan(policy)
        # Sixty prompts: in a thread, since posts are judged meanwhile when an edit goes live.
        await in_thread(partial(check_structure, policy, self._builder, plan.prefix, self._tokens))
        prompt = self._builder.build(_POST, plan.prefix)
        answer_max = plan.attempts[0].tokens_max
        if len(prompt) + answer_max > self._model_len_max:
            message = (
                f"policy {policy.id!r} takes {len(prompt)} tokens and its answer up to {answer_max}, "
                f"over the engine's {self._model_len_max}; raise engine.max_model_len, or shorten the policy"
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
                    **rung._asdict(),
                    remedy="lower its budget in cascade.ladder, or raise engine.max_model_len",
                )
                continue
            # Few posts get there: a prompt of one token compiles the grammar, and the prefix stays cold.
            for attempt in higher.attempts:
                await self._try(policy, prompt[:1], attempt)

    async def _try(self, policy: Policy, prompt: list[int], attempt: Attempt) -> None:
        params = attempt.params.clone()
        params.max_tokens = 1
        completion = await self._client.generate(prompt, params, f"warm-up-{next(_numbers)}", None)
        if completion.finish_reason not in ("length", "stop"):
            message = (
                f"policy {policy.id!r}: the engine cannot complete its prompt "
                f"({completion.finish_reason})"
            )
            raise EngineError(message)
