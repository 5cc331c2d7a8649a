"""Counts predictions against people's labels: what an evaluation says in numbers. Pure.

Intervals are Wilson's (1927). F1 is no share of rows, but F1 = 2 J / (1 + J), where J is a share: the hits among all
rows that either side calls so (Hand et al. 2021, "F*"); Wilson's interval of J, transformed, is F1's, and holds for few
rows, too (Lam 2023, "Confidence intervals for the F1 score"). What it must never do: count what was not decided as
decided, or hide a figure's uncertainty.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from stream_guard.offline.evaluation.predictions import Prediction
    from stream_guard.policies.policy import Policy

__all__ = [
    "Calibrated",
    "Confusion",
    "Cost",
    "Figures",
    "Interval",
    "Score",
    "Slice",
    "count",
    "is_wrong",
    "labels_of",
    "name_categories",
    "wilson",
]

_Z: Final = 1.959963984540054
"""The normal distribution's 97.5th percentile: intervals hold 95 % of what could be."""
_BINS: Final = 10
UNDECIDED: Final = ("undetermined", "failed")


class Interval(NamedTuple):
    """A figure in [0, 1] with the ends of its 95 % interval; None where nothing was counted."""

    value: float | None
    low: float | None = None
    high: float | None = None


class Score(NamedTuple):
    """How well one label is found.

    Attributes:
        name: the label.
        support: rows that people gave it.
        predicted: rows that were given it.
        hits: rows where both agree.
        precision: hits of predicted.
        recall: hits of support; what was not decided is missed.
        f1: their harmonic mean.
    """

    name: str
    support: int
    predicted: int
    hits: int
    precision: Interval
    recall: Interval
    f1: Interval


class Confusion(NamedTuple):
    """Rows by people's label (down) and the predicted one (across)."""

    golden: tuple[str, ...]
    predicted: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


class Bin(NamedTuple):
    """Rows whose confidence lies in a tenth of [0, 1]: how many, their mean, and the share that violates."""

    low: float
    high: float
    rows: int
    confidence: float | None
    violating: Interval


class Calibrated(NamedTuple):
    """What a confidence is worth.

    Attributes:
        rows: with a confidence.
        calibrated: whether a curve was applied.
        bins: the reliability curve.
        ece: expected calibration error (Naeini et al. 2015): the bins' distance from the diagonal, weighted by rows.
        brier: mean squared error (Brier 1950).
        brier_raw: the same before calibration.
    """

    rows: int
    calibrated: bool
    bins: tuple[Bin, ...]
    ece: float
    brier: float
    brier_raw: float


class Cost(NamedTuple):
    """Tokens in all, and seconds a row: the middle one and the slowest of twenty."""

    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    seconds_p50: float
    seconds_p95: float


class Slice(NamedTuple):
    """Some of the rows: those that one tier decided, or of one language."""

    name: str
    rows: int
    accuracy: Interval
    decision: Score
    undecided: int
    cost: Cost


@dataclass(slots=True, frozen=True)
class Figures:
    """All figures of one side.

    Attributes:
        rows: judged.
        accuracy: rows whose decision is people's.
        decision: how well violations are found.
        undecided: rows ``undetermined`` or ``failed``.
        categories: a score for each label that occurs, in the policy's order; empty where people gave none.
        macro_f1: the mean of theirs.
        confusion: of decisions, or of categories where people gave them.
        calibration: None where no confidence was measured.
        cost: in tokens and seconds.
        tiers, languages: the same for parts; languages are empty where no row has one.
    """

    rows: int
    accuracy: Interval
    decision: Score
    undecided: int
    categories: tuple[Score, ...]
    macro_f1: float | None
    confusion: Confusion
    calibration: Calibrated | None
    cost: Cost
    tiers: tuple[Slice, ...]
    languages: tuple[Slice, ...]


def wilson(hits: int, rows: int) -> Interval:
    """Return a share with Wilson's score interval."""
    if rows == 0:
        return Interval(None)
    share, square = hits / rows, _Z * _Z
    centre = (share + square / (2 * rows)) / (1 + square / rows)
    half = (
        _Z
        / (1 + square / rows)
        * math.sqrt(share * (1 - share) / rows + square / (4 * rows * rows))
    )
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half))


def count(predictions: Sequence[Prediction], policy: Policy) -> Figures:
    """Return all figures."""
    correct = sum(_is_correct(each) for each in predictions)
    confusion = _confusion(predictions, policy)
    categories: tuple[Score, ...] = ()
    if any(each.category for each in predictions):
        categories = tuple(_category_scores(predictions, confusion))
    scored = [score.f1.value for score in categories if score.f1.value is not None]
    return Figures(
        rows=len(predictions),
        accuracy=wilson(correct, len(predictions)),
        decision=_decision_score(predictions),
        undecided=sum(each.decision in UNDECIDED for each in predictions),
        categories=categories,
        macro_f1=sum(scored) / len(scored) if scored else None,
        confusion=confusion,
        calibration=_calibration(predictions),
        cost=_cost(predictions),
        tiers=_slices(predictions, lambda each: each.tier),
        languages=_slices(predictions, lambda each: each.language or "none given")
        if any(each.language for each in predictions)
        else (),
    )


def name_categories(predictions: Iterable[Prediction], policy: Policy) -> list[Prediction]:
    """Give decisions without a category the policy's only one of their kind, where it has just one.

    Rules and classifiers say "safe" and no more; where the policy has one category that is safe, they mean that one.
    """
    kinds: dict[str, list[str]] = {"violates": [], "safe": []}
    for category in policy.taxonomy.categories:
        kinds["violates" if category.violates else "safe"].append(category.code)
    only = {kind: codes[0] for kind, codes in kinds.items() if len(codes) == 1}
    return [
        each
        if each.predicted_category is not None or each.decision not in only
        else replace(each, predicted_category=only[each.decision])
        for each in predictions
    ]


def labels_of(prediction: Prediction) -> tuple[str, str]:
    """Return people's label and the predicted one: categories where there are any, else the decision."""
    golden = prediction.category or ("violates" if prediction.violates else "safe")
    if prediction.decision in UNDECIDED:
        return golden, prediction.decision
    return golden, prediction.predicted_category or prediction.decision


def is_wrong(prediction: Prediction) -> bool:
    """Return whether the decision is not people's, or the category is another."""
    golden, predicted = labels_of(prediction)
    return not _is_correct(prediction) or (prediction.category is not None and golden != predicted)


def _is_correct(prediction: Prediction) -> bool:
    return prediction.decision == ("violates" if prediction.violates else "safe")


def _score(name: str, hits: int, alarms: int, misses: int) -> Score:
    """Make a score of hits, false alarms and misses."""
    return Score(
        name,
        hits + misses,
        hits + alarms,
        hits,
        wilson(hits, hits + alarms),
        wilson(hits, hits + misses),
        Interval(
            *(
                None if end is None else 2 * end / (1 + end)
                for end in wilson(hits, hits + alarms + misses)
            )
        ),
    )


def _decision_score(predictions: Sequence[Prediction]) -> Score:
    pairs = Counter((each.violates, each.decision == "violates") for each in predictions)
    return _score("violates", pairs[True, True], pairs[False, True], pairs[True, False])


def _confusion(predictions: Sequence[Prediction], policy: Policy) -> Confusion:
    codes = [category.code for category in policy.taxonomy.categories]
    by_category = any(each.category for each in predictions)
    pairs = Counter(
        labels_of(each) if by_category else ("violates" if each.violates else "safe", each.decision)
        for each in predictions
    )
    order = [*codes, "violates", "safe", *UNDECIDED]
    found = {label for pair in pairs for label in pair}
    order += sorted(
        found - set(order)
    )  # categories of another version, in a file that is read back
    shown = [
        label
        for label in order
        if label in found
        or (by_category and label in codes)
        or (not by_category and label in ("violates", "safe"))
    ]
    golden = tuple(label for label in shown if label not in UNDECIDED)
    return Confusion(
        golden,
        tuple(shown),
        tuple(tuple(pairs[down, across] for across in shown) for down in golden),
    )


def _category_scores(predictions: Sequence[Prediction], confusion: Confusion) -> Iterable[Score]:
    pairs = Counter(labels_of(each) for each in predictions)
    for label in confusion.golden:
        hits = pairs[label, label]
        golden = sum(n for (down, _), n in pairs.items() if down == label)
        predicted = sum(n for (_, across), n in pairs.items() if across == label)
        if golden or predicted:
            yield _score(label, hits, predicted - hits, golden - hits)


def _calibration(predictions: Sequence[Prediction]) -> Calibrated | None:
    known = [
        (
            each.confidence,
            each.confidence if each.confidence_raw is None else each.confidence_raw,
            each.violates,
        )
        for each in predictions
        if each.confidence is not None
    ]
    if not known:
        return None
    sorted_in: list[list[tuple[float, bool]]] = [[] for _ in range(_BINS)]
    for confidence, _, violates in known:
        sorted_in[min(_BINS - 1, int(confidence * _BINS))].append((confidence, violates))
    bins, ece = [], 0.0
    for number, rows in enumerate(sorted_in):
        violating = wilson(sum(violates for _, violates in rows), len(rows))
        mean = sum(confidence for confidence, _ in rows) / len(rows) if rows else None
        bins.append(Bin(number / _BINS, (number + 1) / _BINS, len(rows), mean, violating))
        if mean is not None and violating.value is not None:
            ece += len(rows) / len(known) * abs(mean - violating.value)
    return Calibrated(
        len(known),
        any(each.calibrated for each in predictions),
        tuple(bins),
        ece,
        sum((p - violates) ** 2 for p, _, violates in known) / len(known),
        sum((raw - violates) ** 2 for _, raw, violates in known) / len(known),
    )


def _cost(predictions: Sequence[Prediction]) -> Cost:
    seconds = np.array([each.seconds for each in predictions])
    p50, p95 = np.percentile(seconds, [50, 95]) if len(predictions) else (0.0, 0.0)
    return Cost(
        sum(each.prompt_tokens for each in predictions),
        sum(each.cached_tokens for each in predictions),
        sum(each.output_tokens for each in predictions),
        float(p50),
        float(p95),
    )


def _slices(
    predictions: Sequence[Prediction], name: Callable[[Prediction], str]
) -> tuple[Slice, ...]:
    groups: dict[str, list[Prediction]] = {}
    for each in predictions:
        groups.setdefault(name(each), []).append(each)
    return tuple(
        Slice(
            group,
            len(rows),
            wilson(sum(_is_correct(each) for each in rows), len(rows)),
            _decision_score(rows),
            sum(each.decision in UNDECIDED for each in rows),
            _cost(rows),
        )
        for group, rows in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    )
