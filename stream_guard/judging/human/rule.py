"""The rule by which a decision counts for a post. Pure: no I/O, no clock.

Of all decisions about one content under one policy, the one with the highest rank stands: the latest ``decided_at``,
and of equal ones the greater id. The order of arrival does not matter. A standing decision answers a post only while it
holds. If it no longer holds, no earlier decision takes its place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_guard.policies.section import section_sha256

if TYPE_CHECKING:
    from stream_guard.policies.policy import Policy
    from stream_guard.records.decision import About, Decision
    from stream_guard.records.post import Post

__all__ = ["holds"]


def holds(decision: Decision, post: Post, policy: Policy, now_ms: int) -> bool:
    """Return whether a standing decision answers a post.

    It does if it replaces verdicts, is about this text of this content under this policy, has not expired, and the
    policy's section still has the meaning that was decided by.

    Args:
        decision: the standing decision of the post's subject.
        post: the post.
        policy: the policy in its version of now.
        now_ms: Unix time in ms.
    """
    about, outcome = decision.about, decision.outcome
    if about is None or outcome is None:
        return False
    content = about.content
    if (content.id, content.tenant, about.policy.id) != (post.id, post.tenant, policy.id):
        return False
    if content.sha256 is not None and content.sha256 != post.sha256:
        return False
    if decision.valid_until is not None and now_ms >= decision.valid_until:
        return False
    return _means_the_same(about, policy) and (
        outcome.category is None or policy.taxonomy.category(outcome.category) is not None
    )


def _means_the_same(about: About, policy: Policy) -> bool:
    if about.policy.sha256 == policy.sha256:
        return True
    wanted = about.policy.section_sha256
    return wanted is not None and section_sha256(policy, about.policy.section) == wanted
