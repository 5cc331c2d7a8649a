"""The rules tier: settles posts by a policy's own terms, patterns and hashes, before a model is asked.

No post makes it raise. Its time grows at most linearly with the post. Its reasons never quote the post.

**Order.** Rules are tried in the order of their file. The first that applies decides, whatever its outcome, as in
``routes.yaml`` and in a firewall. To write an allow-list, put a rule with the outcome ``safe`` first.

**Input.** The text without its markup, the markup's links and hidden text, and the title, each by itself. The thread is
not screened: a reply to a slur does not use the slur. Under ``judge: thread`` a rule can settle a post as violating,
but not as safe. Hashes are compared with the text alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_guard.judging.contract import Answer
from stream_guard.judging.tiers.tier import Escalated, Outcome, Settled, with_threads
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
    """Screens posts by their policy's own rules; see :class:`stream_guard.judging.tiers.tier.CheapTier`."""

    name = "rules"
    blocking = False

    def prepare(self, policies: PolicySet) -> None:
        """Do nothing: rules are compiled with their policy, and rejected with it."""

    def wants(self, policy: Policy) -> bool:
        """Return whether the policy has rules."""
        return policy.rules is not None

    def screen(self, posts: Sequence[Post], policy: Policy) -> Sequence[Outcome]:
        """Return one outcome per post, in their order."""
        rules = policy.rules
        if rules is None:
            return [_NO_RULES] * len(posts)
        outcomes = [_outcome(rules, _first(rules, post)) for post in posts]
        return with_threads(outcomes, posts, policy)


def _first(rules: RuleSet, post: Post) -> Hit | None:
    markup = post.markup
    if markup is None:
        return rules.first(post.text, title=post.title, language=post.language)
    return rules.first(markup.text, title=post.title, language=post.language, aside=markup.aside)


_NO_RULES = Escalated("no_rules")
_NO_HIT = Escalated("no_hit")


def _outcome(rules: RuleSet, hit: Hit | None) -> Outcome:
    if hit is None:
        return _NO_HIT
    rule, reason = hit.rule, f"rule:{hit.rule.id}"
    if rule.outcome == "escalate":
        return Escalated(f"{reason}:disguised" if hit.disguised else reason)
    answer = Answer(
        rule.outcome,
        rule.category,
        rule.rule_ids,
        f"rule {rule.id}: {hit.label}",
        "not_applicable",
    )
    return Settled(answer, reason, rules.name)
