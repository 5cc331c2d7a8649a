"""What all posts under one policy have in common: the prompt's prefix, the grammars, the budgets. Made once.

What it must never do: grow without bound, or hand out a plan that was made for another version of a policy.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from stream_guard.judging.families.harmony.grammar import (
    Limits,
    completion_tokens_max,
    structural_tag,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from vllm import SamplingParams

    from stream_guard.core.vocabulary import Effort
    from stream_guard.judging.families.harmony.prompt import PolicyPrefix, PromptBuilder
    from stream_guard.judging.families.harmony.tokens import ControlTokens
    from stream_guard.policies.policy import Policy
    from stream_guard.policies.taxonomy import Taxonomy
    from stream_guard.settings import EngineSettings

PLANS_MAX: Final = 512


@dataclass(slots=True, frozen=True)
class Attempt:
    """How one try is made: its sampling parameters, and the most tokens that they allow."""

    params: SamplingParams
    tokens_max: int


@dataclass(slots=True, frozen=True)
class Plan:
    """All that is the same for every post under one policy on one rung; each attempt has half the last one's budget."""

    effort: Effort
    prefix: PolicyPrefix
    attempts: tuple[Attempt, ...]


class Planner:
    """Makes plans, and keeps the latest :data:`PLANS_MAX`.

    Args:
        settings: budgets and attempts.
        builder: renders prefixes.
        tokens: the model's control tokens.
        make_params: makes sampling parameters of a structural tag and a limit in tokens.
    """

    def __init__(
        self,
        settings: EngineSettings,
        builder: PromptBuilder,
        tokens: ControlTokens,
        make_params: Callable[[str, int], SamplingParams],
    ) -> None:
        self._settings = settings
        self._builder = builder
        self._tokens = tokens
        self._make_params = make_params
        self._plans: OrderedDict[tuple[str, Effort, int, Taxonomy], Plan] = OrderedDict()

    def plan(
        self,
        policy: Policy,
        effort: Effort | None = None,
        reasoning_tokens_max: int | None = None,
    ) -> Plan:
        """Return a plan for a policy: by its own effort and budget, or by these.

        Raises:
            PolicyError: its text cannot be used.
        """
        effort = effort or policy.effort
        budget = reasoning_tokens_max or policy.reasoning_tokens_max
        key = (policy.sha256, effort, budget, policy.taxonomy)
        found = self._plans.get(key)
        if found is None:
            found = self._plans[key] = self._make(policy, effort, budget)
            while len(self._plans) > PLANS_MAX:
                self._plans.popitem(last=False)
        return found

    def _make(self, policy: Policy, effort: Effort, budget: int) -> Plan:
        attempts = []
        for _ in range(self._settings.attempts_max):
            limits = Limits(budget, self._settings.rationale_tokens_max)
            tokens_max = completion_tokens_max(policy.taxonomy, limits)
            tag = structural_tag(policy.taxonomy, self._tokens, limits)
            attempts.append(Attempt(self._make_params(tag, tokens_max), tokens_max))
            budget = max(1, budget // 2)
        return Plan(effort, self._builder.prefix(policy, effort), tuple(attempts))
