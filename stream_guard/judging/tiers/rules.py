"""The rules tier: what a policy's own terms, patterns and hashes settle before a model is asked.

What it must never do: raise on account of a post, take time that grows faster than the post, or say a post's words in
what it gives as its reason.

**Order.** Rules are tried in the order of their file, and the first that applies decides, whatever its outcome: as in
``routes.yaml``, and as in a firewall. An allow-list is a rule with the outcome ``safe`` that stands first.

**What is looked at.** The text, and the title, each by itself. Never the parent: it is somebody else's words, and who
answers a slur has not used one. Hashes are compared with the text alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_guard.judging.contract import Answer
from stream_guard.judging.tiers.tier import Escalated, Outcome, Settled
from stream_guard.policies.rules.ruleset import (
    Fault,
    Hit,
    Rule,
    RuleOutcome,
    RuleSet,
    hash_text,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.policies.policy import Policy, PolicySet
    from stream_guard.records.post import Post

__all__ = ["Fault", "Hit", "Rule", "RuleOutcome", "RuleSet", "RulesTier", "hash_text"]


class RulesTier:
    """Looks at posts by their policy's own rules; see :class:`stream_guard.judging.tiers.tier.CheapTier`."""

    name = "rules"
    blocking = False

    def prepare(self, policies: PolicySet) -> None:
        """Do nothing: rules are compiled with their policy, and refused with it."""

    def wants(self, policy: Policy) -> bool:
        """Return whether the policy has rules."""
        return policy.rules is not None

    def look(self, posts: Sequence[Post], policy: Policy) -> Sequence[Outcome]:
        """Return one outcome per post, in their order."""
        rules = policy.rules
        if rules is None:
            return [_NO_RULES] * len(posts)
        return [
            _outcome(rules, rules.first(post.text, title=post.title, language=post.language))
            for post in posts
        ]


_NO_RULES = Escalated("no_rules")
_NO_HIT = Escalated("no_hit")


def _outcome(rules: RuleSet, hit: Hit | None) -> Outcome:
    if hit is None:
        return _NO_HIT
    rule, reason = hit.rule, f"rule:{hit.rule.id}"
    if rule.outcome == "escalate":
        return Escalated(reason)
    answer = Answer(
        rule.outcome,
        rule.category,
        rule.rule_ids,
        f"rule {rule.id}: {hit.label}",
        "not_applicable",
    )
    return Settled(answer, reason, rules.name)
