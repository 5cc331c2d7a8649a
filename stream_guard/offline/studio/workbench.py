"""Keeps posts that an author tries, and judges them again under each new version of their policies."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, NamedTuple

from stream_guard.judging.contract import JudgeRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.judging.contract import Judgement
    from stream_guard.offline.session import OfflineJudge
    from stream_guard.policies.policy import Policy, PolicySet
    from stream_guard.records.post import Post

__all__ = ["Change", "KeptPost", "Outcome", "Revision", "Workbench", "outcome_of"]


class KeptPost(NamedTuple):
    """A post on the workbench. Its number is for people, from 1, and never given twice."""

    number: int
    post: Post


class Outcome(NamedTuple):
    """What an author compares: the decision (or ``failed``), the category and the rules."""

    decision: str
    category: str | None = None
    rule_ids: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return it in words, such as ``violates DC1 (DC1.a)``."""
        rules = f"({', '.join(self.rule_ids)})" if self.rule_ids else None
        return " ".join(part for part in (self.decision, self.category, rules) if part)


class Change(NamedTuple):
    """A post whose outcome differs under a new version of a policy."""

    kept: KeptPost
    before: Outcome
    after: Outcome


class Revision(NamedTuple):
    """A new version of one policy, and what it changed.

    Attributes:
        policy: the new version.
        posts: how many posts were judged again.
        changes: of these posts.
    """

    policy: Policy
    posts: int
    changes: tuple[Change, ...]


class Workbench:
    """The posts and the policies that judge them.

    Args:
        judge: of all rounds.
        policies: the first version of the policies.
        slugs: ids of the policies to judge by; empty for every policy of the folder.
    """

    def __init__(self, judge: OfflineJudge, policies: PolicySet, slugs: Sequence[str]) -> None:
        self.kept: list[KeptPost] = []
        self._judge = judge
        self._policies = policies
        self._slugs = slugs
        self._numbers = itertools.count(1)
        self._outcomes: dict[tuple[int, str], Outcome] = {}
        # Two rounds at once would mix two versions of a policy.
        self._one_at_a_time = asyncio.Lock()

    @property
    def policies(self) -> tuple[Policy, ...]:
        """The policies that judge each post, in the order of the command line or of the folder."""
        found = self._policies.policies
        return tuple(found[slug] for slug in self._slugs or found if slug in found)

    async def add(self, posts: Sequence[Post]) -> list[tuple[KeptPost, Judgement]]:
        """Keep posts and judge them.

        Raises:
            EngineError: the engine crashes too often.
        """
        async with self._one_at_a_time:
            kept = [KeptPost(next(self._numbers), post) for post in posts]
            self.kept += kept
            return await self._round(kept, self.policies)

    async def switch(self, policies: PolicySet) -> list[Revision]:
        """Judge the kept posts again under the policies that changed.

        Raises:
            EngineError: the engine crashes too often.
            PolicyError: a policy cannot be judged by.
        """
        async with self._one_at_a_time:
            before = {policy.id: policy for policy in self.policies}
            self._policies = policies
            changed = [policy for policy in self.policies if before.get(policy.id) != policy]
            known = dict(self._outcomes)
            judged = await self._round(self.kept, changed)
            return [
                Revision(policy, len(self.kept), tuple(_changes(policy, judged, known)))
                for policy in changed
            ]

    def clear(self) -> None:
        """Drop all posts."""
        self.kept.clear()
        self._outcomes.clear()

    async def _round(
        self, kept: Sequence[KeptPost], policies: Sequence[Policy]
    ) -> list[tuple[KeptPost, Judgement]]:
        pairs = [(each, policy) for each in kept for policy in policies]
        requests = [
            JudgeRequest(f"{each.number}-{policy.id}", each.post, policy) for each, policy in pairs
        ]
        judged = await self._judge.judge(requests)
        for (each, policy), judgement in zip(pairs, judged, strict=True):
            self._outcomes[each.number, policy.id] = outcome_of(judgement)
        return [(each, judgement) for (each, _), judgement in zip(pairs, judged, strict=True)]


def outcome_of(judgement: Judgement) -> Outcome:
    """Return what an author compares of a judgement."""
    answer = judgement.answer
    if answer is None:
        return Outcome("failed")
    return Outcome(answer.decision, answer.category, answer.rule_ids)


def _changes(
    policy: Policy,
    judged: Sequence[tuple[KeptPost, Judgement]],
    known: dict[tuple[int, str], Outcome],
) -> list[Change]:
    changes = []
    for kept, judgement in judged:
        before = known.get((kept.number, policy.id))
        after = outcome_of(judgement)
        if judgement.request.policy is policy and before is not None and before != after:
            changes.append(Change(kept, before, after))
    return changes
