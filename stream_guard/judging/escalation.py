"""Decides which of the model's answers go to another deployment with a larger model. Pure.

Only answers of a model go there. A rule, a classifier's threshold or a person has no doubts that a larger model would
resolve, and a post that pressure left out was not judged at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from stream_guard.judging.tiers.ladder import Ladder

if TYPE_CHECKING:
    from stream_guard.judging.contract import Judgement
    from stream_guard.settings import CascadeSettings

__all__ = ["EscalationRule", "is_better"]

_SEVERE: Final = "severe"


class EscalationRule:
    """Says why a judgement goes to the larger model.

    Args:
        settings: the section ``cascade``: what is uncertain, what is severe, and which of them go.
    """

    def __init__(self, settings: CascadeSettings) -> None:
        self._ladder = Ladder(settings)
        self._why = frozenset(settings.escalation_why)

    def reason(self, judgement: Judgement) -> str | None:
        """Return why the larger model should judge the post, or None.

        A severe violation goes although the ladder has confirmed it: a second answer of one model is no second opinion.
        """
        answer, provenance = judgement.answer, judgement.provenance
        if answer is None or provenance is None or provenance.engine_version is None:
            return None  # no engine answered, neither about this post nor about an equal one
        if answer.decision == "undetermined" and answer.parse_status == "timeout":
            doubt: str | None = (
                "timeout"  # a higher rung would time out, too; another engine may not
            )
        else:
            doubt = self._ladder.doubt(judgement)
        if doubt is None:
            return None
        return doubt if (_SEVERE if doubt == _SEVERE else "uncertain") in self._why else None


def is_better(judgement: Judgement, decision: str) -> bool:
    """Return whether a larger model's judgement replaces a decision: it decided, or the decision did not.

    The ladder has the same rule: a rung that decides nothing does not replace the answer of the rung below.
    """
    answer = judgement.answer
    if answer is None:
        return False
    return answer.decision != "undetermined" or answer.is_escalated or decision == "undetermined"
