"""Checks an evaluation against thresholds. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from stream_guard.offline.evaluation.comparison import Comparison
    from stream_guard.offline.evaluation.figures import Figures

__all__ = ["BY_LANGUAGE", "Check", "Thresholds", "check", "read_share"]

BY_LANGUAGE: Final = "--min-f1-by-language"


class Check(NamedTuple):
    """The check of one threshold: option, bound, figure (None where there is none), and the result."""

    option: str
    bound: float
    reached: float | None
    passed: bool


@dataclass(slots=True, frozen=True)
class Thresholds:
    """Bounds in [0, 1]; None for no bound. Precision, recall and F1 are those of the label ``violates``.

    Attributes:
        f1_by_language_min: for the F1 of every language of the rows.
    """

    f1_min: float | None = None
    precision_min: float | None = None
    recall_min: float | None = None
    undecided_max: float | None = None
    flips_max: float | None = None
    f1_by_language_min: float | None = None


def check(
    thresholds: Thresholds, figures: Figures, comparison: Comparison | None
) -> tuple[Check, ...]:
    """Check each threshold that was set. A missing figure fails its threshold."""
    decision = figures.decision
    lower = (
        ("--min-f1", thresholds.f1_min, decision.f1.value),
        ("--min-precision", thresholds.precision_min, decision.precision.value),
        ("--min-recall", thresholds.recall_min, decision.recall.value),
        *(
            (f"{BY_LANGUAGE} ({part.name})", thresholds.f1_by_language_min, part.decision.f1.value)
            for part in figures.languages
        ),
    )
    flips = None if comparison is None else comparison.flip_share.value
    upper = (
        ("--max-undecided", thresholds.undecided_max, figures.undecided / figures.rows),
        ("--max-flips", thresholds.flips_max, flips),
    )
    return (
        *(
            Check(option, bound, reached, reached is not None and reached >= bound)
            for option, bound, reached in lower
            if bound is not None
        ),
        *(
            Check(option, bound, reached, reached is not None and reached <= bound)
            for option, bound, reached in upper
            if bound is not None
        ),
    )


def read_share(text: str) -> float:
    """Read ``2%`` or ``0.02``. Raises ValueError where the text is invalid or outside [0, 1]."""
    share = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    if not 0.0 <= share <= 1.0:
        message = f"{text!r} is not between 0 and 1 (0% and 100%)"
        raise ValueError(message)
    return share
