"""The port of the cheap tiers, which screen a post before the model reasons about it.

A tier settles a post or escalates it, and gives its reason. No post makes it raise. It decides only what the policy's
own folder asks for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.judging.contract import Answer
    from stream_guard.policies.policy import Policy, PolicySet
    from stream_guard.records.post import Post

__all__ = ["CheapTier", "Escalated", "Outcome", "Settled", "with_threads"]


class Settled(NamedTuple):
    """A tier's decision; no further tier sees the post.

    Attributes:
        answer: checked against the policy's own categories; its rationale never quotes the post.
        reason: machine-readable, from a bounded set per policy (``rule:slurs``, ``above:0.95``); no post text.
        model: what decided: the rule file's digest or the classifier's name; becomes ``provenance.model``.
        confidence: probability in [0, 1] that the post violates, or None if the tier gives none.
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
_THREAD: Final = Escalated("thread")


def with_threads(
    outcomes: Sequence[Outcome], posts: Sequence[Post], policy: Policy
) -> Sequence[Outcome]:
    """Return the outcomes of a tier that sees only the posts, without what they cannot say of a thread.

    Where the policy judges whole threads (``judge: thread``), a safe post does not make its thread safe.
    """
    if policy.judge == "post":
        return outcomes
    return [
        _THREAD
        if post.context and isinstance(outcome, Settled) and outcome.answer.decision == "safe"
        else outcome
        for outcome, post in zip(outcomes, posts, strict=True)
    ]


class CheapTier(Protocol):
    """Screens a list of posts under one policy.

    Attributes:
        name: one of ``policy_meta.Tier``.
        blocking: whether :meth:`screen` takes milliseconds, so that it runs in a thread.
    """

    @property
    def name(self) -> str:
        """Its name in trails and settings."""

    @property
    def blocking(self) -> bool:
        """Whether it runs in a thread."""

    def prepare(self, policies: PolicySet) -> None:
        """Compile or load what these policies need; drop what only other policies needed, once it is unused.

        Raises:
            PolicyError: names the file, the line and the remedy; earlier policies still work.
        """

    def wants(self, policy: Policy) -> bool:
        """Return whether it can settle or explain anything under a policy; if not, it is skipped."""

    def screen(self, posts: Sequence[Post], policy: Policy) -> Sequence[Outcome]:
        """Return one outcome per post, in their order. Works for any policy, prepared or not."""
