"""Compares the predictions of two sides on the same rows. Pure.

Two rows are compared only if post and label are the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from stream_guard.core.errors import SettingsError
from stream_guard.offline.calibrate.libraries import mcnemar_p
from stream_guard.offline.evaluation.figures import Interval, wilson

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.offline.evaluation.predictions import Prediction

__all__ = ["Comparison", "Flip", "compare"]


class Flip(NamedTuple):
    """A row on which the two sides differ; ``against`` is the other side."""

    this: Prediction
    against: Prediction


@dataclass(slots=True, frozen=True)
class Comparison:
    """The differences between two sides.

    Attributes:
        rows: number of compared rows.
        flips: rows with different decisions.
        flip_share: share of flips among all rows.
        moved: rows with the same decision and different categories.
        better, worse: flips towards the human label, and away from it.
        p: p-value of McNemar's exact test (1947) on ``better`` and ``worse``.
    """

    rows: int
    flips: tuple[Flip, ...]
    flip_share: Interval
    moved: tuple[Flip, ...]
    better: int
    worse: int
    p: float


def compare(this: Sequence[Prediction], against: Sequence[Prediction], name: str) -> Comparison:
    """Compare two sides row by row.

    Args:
        this: one side.
        against: the other side, judged on the same rows, in any order.
        name: name of the other side, for messages.

    Raises:
        SettingsError: the rows differ.
    """
    others = {each.row: each for each in against}
    if others.keys() != {each.row for each in this}:
        message = (
            f"--against {name}: its rows differ ({len(others)}, and {len(this)} on this side); judge both sides on "
            "the same golden set"
        )
        raise SettingsError(message)
    flips, moved = [], []
    better = worse = 0
    for each in this:
        other = others[each.row]
        if (each.sha256, each.violates) != (other.sha256, other.violates):
            message = f"--against {name}: row {each.row} has a different text or label there; judge that side again"
            raise SettingsError(message)
        if each.decision == other.decision:
            if each.predicted_category != other.predicted_category:
                moved.append(Flip(each, other))
            continue
        flips.append(Flip(each, other))
        better += each.decision == each.golden
        worse += other.decision == each.golden
    return Comparison(
        len(this),
        tuple(flips),
        wilson(len(flips), len(this)),
        tuple(moved),
        better,
        worse,
        mcnemar_p(better, worse),
    )
