"""Compares the runs of one side: which rows change from run to run, and which rules they name. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from stream_guard.offline.evaluation.figures import count, wilson

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.offline.evaluation.figures import Interval
    from stream_guard.offline.evaluation.predictions import Prediction
    from stream_guard.policies.policy import Policy

__all__ = ["Repetition", "RuleCount", "Runs", "repeated"]

Runs: TypeAlias = "tuple[Prediction, ...]"
"""The predictions of one row, in the order of the runs."""


class RuleCount(NamedTuple):
    """A rule, and how many changed rows name it in some runs and not in others."""

    rule: str
    rows: int


@dataclass(slots=True, frozen=True)
class Repetition:
    """The differences between the runs.

    Attributes:
        runs: number of runs, at least 2.
        rows: number of rows in each.
        flips: rows with more than one decision.
        flip_share: share of flips among all rows.
        moved: rows with one decision and more than one category, or other rules.
        rules: the most frequent first.
        f1, accuracy: of each run; None where there is no such figure.
    """

    runs: int
    rows: int
    flips: tuple[Runs, ...]
    flip_share: Interval
    moved: tuple[Runs, ...]
    rules: tuple[RuleCount, ...]
    f1: tuple[float | None, ...]
    accuracy: tuple[float | None, ...]


def repeated(runs: Sequence[Sequence[Prediction]], policy: Policy) -> Repetition:
    """Compare runs row by row.

    Args:
        runs: predictions for the same rows, in the same order.
        policy: the policy of all runs.
    """
    flips: list[Runs] = []
    moved: list[Runs] = []
    rules: Counter[str] = Counter()
    for row in zip(*runs, strict=True):
        if len({each.decision for each in row}) > 1:
            flips.append(row)
        elif len({(each.predicted_category, frozenset(each.rule_ids)) for each in row}) > 1:
            moved.append(row)
        else:
            continue
        named = [frozenset(each.rule_ids) for each in row]
        rules.update(frozenset.union(*named) - frozenset.intersection(*named))
    figures = [count(run, policy) for run in runs]
    return Repetition(
        len(runs),
        len(runs[0]),
        tuple(flips),
        wilson(len(flips), len(runs[0])),
        tuple(moved),
        tuple(
            RuleCount(rule, rows)
            for rule, rows in sorted(rules.items(), key=lambda item: (-item[1], item[0]))
        ),
        tuple(each.decision.f1.value for each in figures),
        tuple(each.accuracy.value for each in figures),
    )
