"""Plans what all posts under one policy share: the prompt's prefix and each attempt's sampling parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cachetools import LRUCache

from stream_guard.judging.families.family import Budget

if TYPE_CHECKING:
    from collections.abc import Callable

    from vllm import SamplingParams

    from stream_guard.core.decoding import Decoding
    from stream_guard.core.vocabulary import AnswerMode, Effort, JudgeUnit
    from stream_guard.judging.families.family import Family, Prefix, Sampling
    from stream_guard.policies.policy import Policy
    from stream_guard.policies.taxonomy import Taxonomy
    from stream_guard.settings import EngineSettings

PLANS_MAX: Final = 512


@dataclass(slots=True, frozen=True)
class Attempt:
    """How one attempt is made.

    Attributes:
        params: its sampling parameters.
        tokens_max: longest completion, in tokens.
        reasoning_tokens_max: its reasoning budget, in tokens.
    """

    params: SamplingParams
    tokens_max: int
    reasoning_tokens_max: int


@dataclass(slots=True, frozen=True)
class Plan:
    """What all posts under one policy share on one rung. Each attempt has half the reasoning budget of the last."""

    effort: Effort
    prefix: Prefix
    decoding: Decoding
    attempts: tuple[Attempt, ...]


class Planner:
    """Makes plans, and caches the :data:`PLANS_MAX` least recently used.

    Args:
        settings: budgets and attempts.
        family: of the model.
        make_params: makes the engine's sampling parameters.
    """

    def __init__(
        self,
        settings: EngineSettings,
        family: Family,
        make_params: Callable[[Sampling, Decoding], SamplingParams],
    ) -> None:
        self._settings = settings
        self._family = family
        self._make_params = make_params
        self._plans: LRUCache[
            tuple[str, Effort, int, Decoding, Taxonomy, JudgeUnit, AnswerMode], Plan
        ] = LRUCache(PLANS_MAX)

    def plan(
        self,
        policy: Policy,
        effort: Effort | None = None,
        reasoning_tokens_max: int | None = None,
        decoding: Decoding | None = None,
    ) -> Plan:
        """Return a plan for a policy, at its own effort, reasoning budget and decoding or at these.

        Raises:
            PolicyError: its text yields a control token.
        """
        effort = effort or policy.effort
        budget = reasoning_tokens_max or policy.reasoning_tokens_max
        decoding = decoding or policy.decoding
        key = (
            policy.sha256,
            effort,
            budget,
            decoding,
            policy.taxonomy,
            policy.judge,
            policy.answer,
        )
        found = self._plans.get(key)
        if found is None:
            found = self._plans[key] = self._make(policy, effort, budget, decoding)
        return found

    def _make(
        self, policy: Policy, effort: Effort, reasoning_tokens_max: int, decoding: Decoding
    ) -> Plan:
        attempts = []
        for _ in range(self._settings.attempts_max):
            budget = Budget(reasoning_tokens_max, self._settings.rationale_tokens_max)
            sampling = self._family.sampling(policy, budget)
            params = self._make_params(sampling, decoding)
            attempts.append(Attempt(params, sampling.tokens_max, reasoning_tokens_max))
            reasoning_tokens_max = max(1, reasoning_tokens_max // 2)
        return Plan(effort, self._family.prefix(policy, effort), decoding, tuple(attempts))
