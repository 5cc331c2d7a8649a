"""The last tier's ladder: asks the model at a policy's own effort, and again at a higher effort where that pays. Pure.

A post climbs if its answer was uncertain, could not be read, leaves the post to people, followed reasoning that was cut
at its budget, or is a severe violation that needs confirmation. The ladder is finite. The result keeps the best answer
of all rungs, and the sum of what they spent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from stream_guard.core.decoding import GREEDY
from stream_guard.judging.contract import TierStep
from stream_guard.policies.calibration import calibrate

if TYPE_CHECKING:
    from stream_guard.core.decoding import Decoding
    from stream_guard.core.vocabulary import Effort
    from stream_guard.judging.contract import Answer, Judgement, Provenance, Thought
    from stream_guard.policies.policy import Policy
    from stream_guard.settings import CascadeSettings

_EFFORTS: Final[tuple[Effort, ...]] = ("low", "medium", "high")
_UNREADABLE: Final = frozenset({"malformed", "empty", "truncated"})
"""Not ``timeout``: a post that timed out at a low effort also times out at a high one."""


class Rung(NamedTuple):
    """How the model is asked: its effort, the reasoning budget in tokens, and how its answers are drawn."""

    effort: Effort
    reasoning_tokens_max: int
    decoding: Decoding = GREEDY


class Ladder:
    """The rungs, and when to climb them, as the settings say."""

    def __init__(self, settings: CascadeSettings) -> None:
        self._rungs = settings.ladder
        self._low, self._high = settings.uncertain_band
        self._severe = frozenset(settings.severe)

    def rungs(self, policy: Policy) -> tuple[Rung, ...]:
        """Return a policy's rungs: its own effort, budget and decoding, then those of the settings above it."""
        own = Rung(policy.effort, policy.reasoning_tokens_max, policy.decoding)
        above = (
            Rung(
                rung.effort,
                max(rung.reasoning_tokens_max, own.reasoning_tokens_max),
                own.decoding.changed(rung.temperature, rung.top_p, rung.samples),
            )
            for rung in self._rungs
            if _EFFORTS.index(rung.effort) > _EFFORTS.index(policy.effort)
        )
        return (own, *above)

    def is_severe(self, policy: Policy) -> bool:
        """Return whether the policy declares a violating category of a severity that counts as severe."""
        return any(
            category.violates and category.severity in self._severe
            for category in policy.taxonomy.categories
        )

    def doubt(self, judgement: Judgement, below: Answer | None = None) -> str | None:
        """Return why a higher rung should be asked, or None if this answer is good enough.

        Args:
            judgement: of a rung.
            below: the answer of the rung below, if any. A severe violation in both answers is confirmed.
        """
        answer = judgement.answer
        if answer is None:
            return None
        provenance = judgement.provenance
        if answer.decision == "undetermined":
            return _why_undetermined(answer, provenance)
        if provenance is not None and provenance.reasoning_cut:
            return "reasoning_cut"
        confidence = _confidence(judgement)
        if confidence is not None and self._low <= confidence <= self._high:
            return "uncertain"
        if answer.decision == "violates" and answer.category is not None and self._severe:
            category = judgement.request.policy.taxonomy.category(answer.category)
            if category is not None and category.severity in self._severe:
                same = below is not None and below.category == answer.category
                return None if same else "severe"
        return None


class Climb:
    """One post on the ladder, from its second rung on.

    Attributes:
        best: the latest judgement with a decision, or else the latest judgement.
        started_ns: start of the first rung, Unix time in ns.
        thoughts: of all rungs, if they are kept.
    """

    __slots__ = ("_spent", "best", "started_ns", "thoughts")

    def __init__(self) -> None:
        self.best: Judgement | None = None
        self.started_ns = 0
        self._spent = (0, 0, 0, 0)
        self.thoughts: tuple[Thought, ...] = ()

    def add(self, judgement: Judgement) -> None:
        """Add a rung's judgement. Its tokens count, whatever it says."""
        provenance = judgement.provenance
        if provenance is not None:
            self._spent = _add(self._spent, provenance)
        self.thoughts += judgement.thoughts
        if self.best is None:
            self.started_ns = judgement.started_ns
        refused = judgement.error is not None
        if self.best is None or (
            not refused and (_has_decided(judgement) or not _has_decided(self.best))
        ):
            self.best = judgement

    def end(self, last: Judgement) -> Judgement:
        """Return the ladder's result: the best answer, and the tokens that all rungs spent."""
        best = self.best
        assert best is not None, "add() comes first"
        if best.provenance is not None:
            best.provenance = total = best.provenance.copy()
            (
                total.prompt_tokens,
                total.cached_tokens,
                total.output_tokens,
                total.attempts,
            ) = self._spent
        best.thoughts = self.thoughts
        best.started_ns = self.started_ns
        best.finished_ns = last.finished_ns
        return best


def step_of(judgement: Judgement, doubt: str | None, *, climbs: bool) -> TierStep:
    """Return a rung's line of the trail.

    Args:
        judgement: the rung's.
        doubt: why a higher rung should be asked, if so.
        climbs: whether one is.
    """
    provenance, answer = judgement.provenance, judgement.answer
    tier = "safeguard" if provenance is None else provenance.tier
    effort = None if provenance is None else provenance.effort
    duration_us = max(0, judgement.finished_ns - judgement.started_ns) // 1_000
    if judgement.error is not None:
        return TierStep(tier, "skipped", f"refused:{judgement.error.reason}", duration_us, effort)
    if climbs:
        return TierStep(tier, "escalated", doubt or "", duration_us, effort)
    reason = "answered"
    if doubt is not None:
        reason = f"last_rung:{doubt}"
    elif answer is not None and answer.decision == "undetermined":
        reason = answer.parse_status
    return TierStep(tier, "settled", reason, duration_us, effort)


def with_trail(
    provenance: Provenance, trail: tuple[TierStep, ...], degraded: tuple[str, ...] = ()
) -> Provenance:
    """Return a model's provenance with the steps that led to it, and the skipped work."""
    copy = provenance.copy()
    copy.trail, copy.degraded = trail, degraded
    return copy


def _confidence(judgement: Judgement) -> float | None:
    """Return the confidence that the verdict will have: calibrated, if the policy has a curve for it."""
    provenance, policy = judgement.provenance, judgement.request.policy
    if provenance is None or policy.calibration is None:
        return judgement.confidence
    return calibrate(
        judgement.confidence,
        judgement.confidence_method,
        policy.calibration,
        policy_sha256=policy.sha256,
        model=provenance.model,
        revision=provenance.revision,
    )[0]


def _why_undetermined(answer: Answer, provenance: Provenance | None) -> str | None:
    """Return why a higher rung may decide what this answer did not; None where it would not."""
    if answer.is_escalated:
        return "escalated"
    if answer.parse_status in _UNREADABLE:
        return answer.parse_status
    sampling = None if provenance is None else provenance.sampling
    return "no_majority" if sampling is not None and sampling.is_tied else None


def _has_decided(judgement: Judgement) -> bool:
    """Return whether a judgement has an answer of the model's own, also one that leaves the post to people."""
    answer = judgement.answer
    return answer is not None and (answer.decision != "undetermined" or answer.is_escalated)


def _add(spent: tuple[int, int, int, int], provenance: Provenance) -> tuple[int, int, int, int]:
    return (
        spent[0] + provenance.prompt_tokens,
        spent[1] + provenance.cached_tokens,
        spent[2] + provenance.output_tokens,
        spent[3] + provenance.attempts,
    )
