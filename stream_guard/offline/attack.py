"""Judges posts unaltered and in every hostile form, and counts the decisions that change.

A post that could not be judged never counts as held.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stream_guard.judging.contract import JudgeRequest
from stream_guard.judging.hostile_posts import ATTACKS, attacked
from stream_guard.offline.session import judge_all

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stream_guard.judging.contract import Answer, Judge
    from stream_guard.policies.policy import Policy, PolicySet
    from stream_guard.records.post import Post

PLAIN = "plain"


@dataclass(slots=True)
class AttackResult:
    """The result of one attack, in posts.

    Attributes:
        held: the decision is the same with and without the attack.
        hidden: violating without the attack, safe with it. This is what an attacker wants.
        accused: safe without the attack, violating with it.
        escalated: decided without the attack; with it, a label of the policy leaves the post to people.
        undetermined: decided without the attack, undetermined with it.
        failed: could not be judged.
    """

    name: str
    held: int = 0
    hidden: int = 0
    accused: int = 0
    escalated: int = 0
    undetermined: int = 0
    failed: int = 0


@dataclass(slots=True, frozen=True)
class Flip:
    """A post whose decision changed in a disguise.

    Attributes:
        attack: name of the disguise.
        post: id of the post.
        before, after: the decision without and with the disguise.
        text: the text in the disguise. It comes from outside.
    """

    attack: str
    post: str
    before: str
    after: str
    text: str


@dataclass(slots=True)
class AttackReport:
    """The results of all attacks on one policy.

    Attributes:
        policy, version, model: under attack.
        posts: number of posts that were decided without an attack. Only these count.
        violating: how many of them violate.
        undecided: posts left out, because they were not decided without an attack.
        results: one for each attack, in the order of ``ATTACKS``.
        flips: the posts that are hidden or accused, in the same order.
    """

    policy: str
    version: str
    model: str
    posts: int = 0
    violating: int = 0
    undecided: int = 0
    results: list[AttackResult] = field(default_factory=list)
    flips: list[Flip] = field(default_factory=list)

    @property
    def hidden_share(self) -> float:
        """Share of all hostile forms of violating posts that were judged safe, in [0, 1]."""
        tried = self.violating * len(self.results)
        return sum(result.hidden for result in self.results) / tried if tried else 0.0


async def run_attacks(
    judge: Judge,
    policies: PolicySet,
    policy: Policy,
    posts: Sequence[Post],
    *,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> AttackReport:
    """Start the judge, try every attack on every post, and close the judge.

    Args:
        judge: not started yet.
        policies: the judge starts with these; one of them is ``policy``.
        policy: the policy to judge by.
        posts: unaltered.
        progress: called with the number of judged posts and of all posts.

    Raises:
        EngineError: the judge did not start, or died.
    """
    forms = [(PLAIN, post) for post in posts]
    forms += [(a.name, attacked(post, a, policy.taxonomy)) for a in ATTACKS for post in posts]
    try:
        await judge.start(policies)
        decisions = await _decide(judge, policy, [post for _, post in forms], progress)
        model = dict(judge.describe()).get("model", "")
    finally:
        await judge.close()
    report = AttackReport(policy.id, policy.version, model)
    plain = decisions[: len(posts)]
    report.posts = sum(decision in ("violates", "safe") for decision in plain)
    report.violating = plain.count("violates")
    report.undecided = len(posts) - report.posts
    for number, attack in enumerate(ATTACKS, 1):
        hostile = decisions[number * len(posts) : (number + 1) * len(posts)]
        report.results.append(_compare(attack.name, plain, hostile))
        disguised = forms[number * len(posts) : (number + 1) * len(posts)]
        report.flips += [
            Flip(attack.name, post.id, before, after, hidden.text)
            for post, (_, hidden), before, after in zip(
                posts, disguised, plain, hostile, strict=True
            )
            if {before, after} == {"violates", "safe"}
        ]
    return report


async def _decide(
    judge: Judge, policy: Policy, posts: Sequence[Post], progress: Callable[[int, int], None]
) -> list[str]:
    """Return each post's decision, ``escalated`` or ``failed``. Raises EngineError where the judge dies."""
    requests = [JudgeRequest(str(n), post, policy) for n, post in enumerate(posts)]
    answers = [judgement.answer for judgement in await judge_all(judge, requests, progress)]
    return [_word(answer) for answer in answers]


def _word(answer: Answer | None) -> str:
    if answer is None:
        return "failed"
    return "escalated" if answer.is_escalated else answer.decision


def _compare(name: str, plain: Sequence[str], hostile: Sequence[str]) -> AttackResult:
    pairs = Counter(zip(plain, hostile, strict=True))
    decided = [
        (before, after, n) for (before, after), n in pairs.items() if before in ("violates", "safe")
    ]
    result = AttackResult(name)
    for before, after, count in decided:
        if after == before:
            result.held += count
        elif after == "failed":
            result.failed += count
        elif after == "escalated":
            result.escalated += count
        elif after == "undetermined":
            result.undetermined += count
        elif before == "violates":
            result.hidden += count
        else:
            result.accused += count
    return result
