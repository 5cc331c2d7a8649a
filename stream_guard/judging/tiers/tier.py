"""The cheap tiers, which look at a post before the model reasons about it: what they share.

A tier settles a post or escalates it, and says why. What it must never do: raise on account of a post, or
take a decision that the policy's own folder did not ask for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.judging.contract import Answer
    from stream_guard.policies.policy import Policy, PolicySet
    from stream_guard.records.post import Post

__all__ = ["CheapTier", "Escalated", "Outcome", "Settled"]


class Settled(NamedTuple):
    """A tier's decision, with which a post's way ends.

    Attributes:
        answer: checked against the policy's own categories; its rationale names what matched, never the post's words.
        reason: machine-readable, from a bounded set per policy (``rule:slurs``, ``above:0.95``); no post text.
        model: what decided: the rule file's digest, the classifier's name; ends as ``provenance.model``.
        confidence: probability in [0, 1] that the post violates, or None where the tier has none.
        confidence_method: its name, or None.
    """

    answer: Answer
    reason: str
    model: str
    confidence: float | None = None
    confidence_method: str | None = None


class Escalated(NamedTuple):
    """A tier leaves the post to the next. ``reason`` as in :class:`Settled`."""

    reason: str


Outcome: TypeAlias = Settled | Escalated


class CheapTier(Protocol):
    """Looks at a list of posts under one policy.

    Attributes:
        name: one of ``policy_meta.Tier``.
        blocking: whether :meth:`look` takes milliseconds, and so belongs into a thread.
    """

    @property
    def name(self) -> str:
        """Its name in trails and settings."""

    @property
    def blocking(self) -> bool:
        """Whether it belongs into a thread."""

    def prepare(self, policies: PolicySet) -> None:
        """Compile or load what these policies need; what other policies needed may be dropped once unused.

        Raises:
            PolicyError: names the file, the line and the remedy; what was prepared before still works.
        """

    def wants(self, policy: Policy) -> bool:
        """Return whether it could settle or explain anything under a policy; where not, it is passed over."""

    def look(self, posts: Sequence[Post], policy: Policy) -> Sequence[Outcome]:
        """Return one outcome per post, in their order. Works for any policy, prepared or not."""
