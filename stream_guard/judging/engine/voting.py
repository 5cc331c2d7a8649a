"""Decides by the votes of several samples of one prompt. Pure.

Self-consistency: Wang et al. 2023, "Self-Consistency Improves Chain of Thought Reasoning in Language Models". A
decision needs more than half of the votes. A tie is undetermined, since a coin must not decide about a post.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

from stream_guard.judging.contract import Answer, Votes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.core.vocabulary import Decision, Effort
    from stream_guard.judging.contract import JudgeRequest

__all__ = ["UNREAD", "Cast", "Outcome", "decide", "seed_of"]

UNREAD: Final = frozenset({"malformed", "empty", "truncated", "timeout"})
"""Parse statuses of a sample without an answer. It has no vote."""

_ALONE: Final[dict[Decision, Votes]] = {
    "violates": Votes(violates=1),
    "safe": Votes(safe=1),
    "undetermined": Votes(undetermined=1),
}


class Cast(NamedTuple):
    """What one sample says, and whether its reasoning was cut at the budget."""

    answer: Answer
    reasoning_cut: bool = False


class Outcome(NamedTuple):
    """What the samples decide.

    Attributes:
        answer: that of sample ``chosen``, or ``undetermined`` where no decision has a majority.
        chosen: index of the sample that gives category, rules and rationale.
        confidence: agreement on a violation, in [0, 1]; None where the samples ask for a person, none was read, or
            there is only one.
        votes: of all samples.
        reasoning_cut: whether the decision has no majority without the samples whose reasoning was cut.
    """

    answer: Answer
    chosen: int
    confidence: float | None
    votes: Votes
    reasoning_cut: bool


def decide(casts: Sequence[Cast]) -> Outcome:
    """Return the outcome of a vote.

    The answer is the first sample of the category that most samples of the majority name. The confidence is the share
    of votes for a violation. A sample without an answer counts as half a vote for it there, so that few votes are
    never sure.

    Args:
        casts: one for each sample, in order; at least one.
    """
    if len(casts) == 1:  # most requests: they need no count
        (cast,) = casts
        read = cast.answer.parse_status not in UNREAD
        votes = _ALONE[cast.answer.decision] if read else Votes(unread=1)
        return Outcome(cast.answer, 0, None, votes, cast.reasoning_cut)
    voters = [index for index, cast in enumerate(casts) if cast.answer.parse_status not in UNREAD]
    counts = Counter(casts[index].answer.decision for index in voters)
    unread = len(casts) - len(voters)
    votes = Votes(counts["violates"], counts["safe"], counts["undetermined"], unread)
    if not voters:
        return Outcome(casts[0].answer, 0, None, votes, casts[0].reasoning_cut)
    confidence = (votes.violates + (votes.undetermined + unread) / 2) / len(casts)
    decision = votes.majority()
    if decision is None:
        answer = Answer("undetermined")
        cut = any(casts[index].reasoning_cut for index in voters)
        return Outcome(answer, voters[0], confidence, votes, cut)
    winners = [index for index in voters if casts[index].answer.decision == decision]
    # Of equally common categories the first counts: Counter keeps the order of the samples.
    category = Counter(casts[index].answer.category for index in winners).most_common(1)[0][0]
    chosen = next(index for index in winners if casts[index].answer.category == category)
    whole = sum(not casts[index].reasoning_cut for index in winners)
    return Outcome(
        casts[chosen].answer,
        chosen,
        None if decision == "undetermined" else confidence,
        votes,
        2 * whole <= len(voters),
    )


def seed_of(request: JudgeRequest, effort: Effort, sample: int, attempt: int) -> int:
    """Return the seed of one completion, in [0, 2**63).

    It depends on post, policy, effort and the numbers of run, sample and attempt alone, so that judging a post again
    draws the same tokens, as far as the engine allows.
    """
    name = f"{request.post.sha256}\n{request.policy.sha256}\n{effort}\n{request.run}\n{sample}\n{attempt}"
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) >> 1
