"""Plans what all posts under one policy share: the prompt's prefix and each attempt's sampling parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cachetools import LRUCache

from stream_guard.judging.engine.arguments import choose_constraint
from stream_guard.judging.engine.first_attempts import FirstAttempts
from stream_guard.judging.engine.two_parts import Bounded, TwoParts
from stream_guard.judging.families.family import Budget

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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
        allows: of an attempt without a constraint: whether a completion counts. None with a constraint.
        parts: of an attempt that two requests may make: the first. With TwoParts, ``params`` are the second's; else
            those of the whole completion.
    """

    params: SamplingParams
    tokens_max: int
    reasoning_tokens_max: int
    allows: Callable[[Sequence[int]], bool] | None = None
    parts: TwoParts | Bounded | None = None


@dataclass(slots=True, frozen=True)
class Plan:
    """What all posts under one policy share on one rung.

    Each attempt with a constraint has half the reasoning budget of the last. An attempt without one comes before them.

    Attributes:
        first: counts how often the answer of an attempt without a constraint counts. Each plan has its own: a policy
            whose samples are drawn, or whose format the model often breaks, says nothing about another.
    """

    effort: Effort
    prefix: Prefix
    decoding: Decoding
    attempts: tuple[Attempt, ...]
    first: FirstAttempts


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
        self._chosen = choose_constraint(settings)
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
        if self._chosen.constraint == "on_retry":
            attempts += self._unconstrained(policy, reasoning_tokens_max, decoding)
        for _ in range(self._settings.attempts_max):
            attempts.append(self._constrained(policy, reasoning_tokens_max, decoding))
            reasoning_tokens_max = max(1, reasoning_tokens_max // 2)
        may_stop, counted_min = self._settings.constraint == "auto", self._chosen.counted_min
        first = FirstAttempts(policy.id, effort, may_stop=may_stop, counted_min=counted_min)
        return Plan(effort, self._family.prefix(policy, effort), decoding, tuple(attempts), first)

    def _constrained(
        self, policy: Policy, reasoning_tokens_max: int, decoding: Decoding
    ) -> Attempt:
        budget = Budget(reasoning_tokens_max, self._settings.rationale_tokens_max)
        sampling = self._family.sampling(policy, budget)
        found = (
            self._family.in_parts(policy, budget) if self._chosen.constraint == "answer" else None
        )
        if found is None:
            params = self._make_params(sampling, decoding)
            return Attempt(params, sampling.tokens_max, reasoning_tokens_max)
        thinking = self._make_params(found.thinking, decoding)
        return Attempt(
            self._make_params(found.answer, decoding),
            sampling.tokens_max,
            reasoning_tokens_max,
            parts=TwoParts(found.opening, thinking, frozenset(found.thinking.stops), found.closing),
        )

    def _unconstrained(
        self, policy: Policy, reasoning_tokens_max: int, decoding: Decoding
    ) -> list[Attempt]:
        """Return the attempt without a constraint; none if the family always needs one."""
        budget = Budget(reasoning_tokens_max, self._settings.rationale_tokens_max)
        free = self._family.unconstrained(policy, budget)
        if free is None:
            return []
        sampling, allows, reasoning = free
        bounded = None
        if reasoning is not None:
            thinking = sampling._replace(
                tokens_max=min(sampling.tokens_max, len(reasoning.opening) + reasoning_tokens_max)
            )
            bounded = Bounded(reasoning, self._make_params(thinking, decoding))
        params = self._make_params(sampling, decoding)
        return [Attempt(params, sampling.tokens_max, reasoning_tokens_max, allows, bounded)]
