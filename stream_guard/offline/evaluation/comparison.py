"""Two sides judged on the same rows: what changed from one to the other. Pure.

What it must never do: compare rows that are not the same post under the same label.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from stream_guard.core.errors import SettingsError
from stream_guard.offline.evaluation.figures import Interval, wilson

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.offline.evaluation.predictions import Prediction

__all__ = ["Comparison", "Flip", "compare"]


class Flip(NamedTuple):
    """One row on which the two sides differ; ``against`` is the other side."""

    this: Prediction
    against: Prediction


@dataclass(slots=True, frozen=True)
class Comparison:
    """What differs.

    Attributes:
        rows: compared.
        flips: rows with another decision.
        flip_share: of all rows.
        moved: rows with the same decision in another category.
        better, worse: flips to and from people's decision.
        p: of McNemar's exact test (1947): how likely so uneven a count is, were both sides equally good.
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
        against: the other, judged on the same rows, in any order.
        name: of the other side, for messages.

    Raises:
        SettingsError: the rows are not the same.
    """
    others = {each.row: each for each in against}
    if others.keys() != {each.row for each in this}:
        message = (
            f"--against {name}: judged other rows ({len(others)} of them, here {len(this)}); both sides need the same "
            "golden set"
        )
        raise SettingsError(message)
    flips, moved = [], []
    better = worse = 0
    for each in this:
        other = others[each.row]
        if (each.sha256, each.violates) != (other.sha256, other.violates):
            message = f"--against {name}: row {each.row} has another text or label there; judge that set anew"
            raise SettingsError(message)
        if each.decision == other.decision:
            if each.predicted_category != other.predicted_category:
                moved.append(Flip(each, other))
            continue
        flips.append(Flip(each, other))
        golden = "violates" if each.violates else "safe"
        better += each.decision == golden
        worse += other.decision == golden
    return Comparison(
        len(this),
        tuple(flips),
        wilson(len(flips), len(this)),
        tuple(moved),
        better,
        worse,
        mcnemar(better, worse),
    )


def mcnemar(better: int, worse: int) -> float:
    """Return the exact two-sided probability of so uneven a split of ``better + worse`` coin tosses."""
    tosses = better + worse
    tail = sum(math.comb(tosses, k) for k in range(min(better, worse) + 1))
    return min(1.0, 2 * tail / (1 << tosses))
