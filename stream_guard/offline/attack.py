"""Judges posts as they are and in every hostile form, and counts the decisions that flip.

What it must never do: count what could not be judged as held.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stream_guard.judging.contract import JudgeRequest
from stream_guard.judging.hostile_posts import ATTACKS, attacked

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stream_guard.judging.contract import Judge, Judgement
    from stream_guard.policies.policy import Policy, PolicySet
    from stream_guard.records.post import Post

PLAIN = "plain"


@dataclass(slots=True)
class AttackResult:
    """What one attack did, in posts.

    Attributes:
        held: decided as without it.
        hidden: violating without it, safe with it: what an author wants.
        accused: safe without it, violating with it.
        undetermined: decided without it, not decided with it.
        failed: could not be judged (a post that grew too long, for one).
    """

    name: str
    held: int = 0
    hidden: int = 0
    accused: int = 0
    undetermined: int = 0
    failed: int = 0


@dataclass(slots=True)
class AttackReport:
    """All attacks on one policy.

    Attributes:
        policy, version, model: what was tried.
        posts: how many could be decided without an attack, and so are counted.
        violating: how many of them violate.
        undecided: posts left out, since without an attack nothing was decided.
        results: one for each attack, in the order of ``ATTACKS``.
    """

    policy: str
    version: str
    model: str
    posts: int = 0
    violating: int = 0
    undecided: int = 0
    results: list[AttackResult] = field(default_factory=list)

    @property
    def hidden_share(self) -> float:
        """Of the violating posts in all their hostile forms, the share that passed as safe; in [0, 1]."""
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
    """Start the judge, try every attack on every post, close the judge.

    Args:
        judge: not started yet.
        policies: what the judge is started with; holds ``policy``.
        policy: to judge by.
        posts: as they are.
        progress: called with how many of how many are judged.

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
    return report


async def _decide(
    judge: Judge, policy: Policy, posts: Sequence[Post], progress: Callable[[int, int], None]
) -> list[str]:
    """Return each post's decision, or ``failed``. Raises what the judge dies of."""
    requests = [JudgeRequest(str(n), post, policy) for n, post in enumerate(posts)]
    decisions: dict[str, str] = {}
    finished = asyncio.Event()

    def deliver(judgements: Sequence[Judgement]) -> None:
        for judgement in judgements:
            answer = judgement.answer
            decisions[judgement.request.id] = "failed" if answer is None else answer.decision
        progress(len(decisions), len(requests))
        if len(decisions) == len(requests):
            finished.set()

    judge.submit(requests, deliver)
    died = asyncio.create_task(judge.wait_failed())
    done = asyncio.create_task(finished.wait())
    try:
        await asyncio.wait([died, done], return_when=asyncio.FIRST_COMPLETED)
        if not done.done():
            raise died.result()
    finally:
        for task in (died, done):
            task.cancel()
        await asyncio.gather(died, done, return_exceptions=True)
    return [decisions[request.id] for request in requests]


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
        elif after == "undetermined":
            result.undetermined += count
        elif before == "violates":
            result.hidden += count
        else:
            result.accused += count
    return result
