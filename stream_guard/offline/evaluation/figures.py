"""Counts predictions against human labels: the figures of an evaluation. Pure.

Intervals are Wilson's (1927). F1 is not a share of rows, but F1 = 2 J / (1 + J). J is a share: the hits among all
rows that either side labels so (Hand et al. 2021, "F*"). Wilson's interval of J, transformed, is that of F1. It
holds for few rows, too (Lam 2023, "Confidence intervals for the F1 score"). Undecided rows never count as decided.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from stream_guard.offline.calibrate.libraries import confusion_counts, mean_square, wilson_bounds

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

_BINS: Final = 10
UNDECIDED: Final = ("undetermined", "failed")


class Interval(NamedTuple):
    """A figure in [0, 1] with the ends of its 95 % interval; None where there are no rows."""

    value: float | None
    low: float | None = None
    high: float | None = None


class Score(NamedTuple):
    """Precision, recall and F1 of one label.

    scikit-learn's scores have neither intervals nor a value for "no rows", so that they come from counts.

    Attributes:
        name: the label.
        support: number of rows with this human label.
        predicted: number of rows with this prediction.
        hits: number of rows with both.
        precision: hits / predicted.
        recall: hits / support; an undecided row counts as a miss.
        f1: harmonic mean of precision and recall.
    """

    name: str
    support: int
    predicted: int
    hits: int
    precision: Interval
    recall: Interval
    f1: Interval


class Confusion(NamedTuple):
    """Number of rows by human label (down) and predicted label (across)."""

    golden: tuple[str, ...]
    predicted: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


class Bin(NamedTuple):
    """Rows whose confidence is in one tenth of [0, 1]: their number, mean confidence and violating share."""

    low: float
    high: float
    rows: int
    confidence: float | None
    violating: Interval


class Calibrated(NamedTuple):
    """The reliability of the confidences.

    Attributes:
        rows: number of rows with a confidence.
        calibrated: whether a calibration curve was applied.
        bins: the reliability curve.
        ece: expected calibration error (Naeini et al. 2015): distance of the bins from the diagonal, weighted by rows.
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
    """Total tokens, and seconds for a row: median and 95th percentile."""

    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    seconds_p50: float
    seconds_p95: float


class Slice(NamedTuple):
    """The figures of a part of the rows: one tier or one language."""

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
        rows: number of judged rows.
        accuracy: share of rows whose decision equals the human label.
        decision: the score of the label ``violates``.
        undecided: number of rows that are ``undetermined`` or ``failed``.
        escalated: number of rows that the policy's own label leaves to people.
        categories: a score for each label that occurs, in the policy's order, over the rows that name a category;
            empty where no row does.
        macro_f1: mean F1 of the categories.
        confusion: of categories, over the rows that name one; else of decisions, over all rows.
        calibration: None where no confidence was measured.
        cost: in tokens and seconds.
        tiers, languages: the same by tier and by language; no languages where no row has one.
    """

    rows: int
    accuracy: Interval
    decision: Score
    undecided: int
    escalated: int
    categories: tuple[Score, ...]
    macro_f1: float | None
    confusion: Confusion
    calibration: Calibrated | None
    cost: Cost
    tiers: tuple[Slice, ...]
    languages: tuple[Slice, ...]

    @property
    def uncategorised(self) -> int:
        """Number of rows that are not in the table of categories, because their label names none."""
        if not self.categories:
            return 0
        return self.rows - sum(map(sum, self.confusion.counts))


def wilson(hits: int, rows: int) -> Interval:
    """Return a share with Wilson's score interval."""
    return Interval(hits / rows, *wilson_bounds(hits, rows)) if rows else Interval(None)


def count(predictions: Sequence[Prediction], policy: Policy) -> Figures:
    """Return all figures."""
    correct = sum(_is_correct(each) for each in predictions)
    # A label such as "violates" names no category, so its row cannot say whether the category is right.
    named = [each for each in predictions if each.category]
    confusion = _confusion(named or predictions, policy)
    categories = tuple(_category_scores(named, confusion)) if named else ()
    scored = [score.f1.value for score in categories if score.f1.value is not None]
    return Figures(
        rows=len(predictions),
        accuracy=wilson(correct, len(predictions)),
        decision=_decision_score(predictions),
        undecided=sum(each.decision in UNDECIDED for each in predictions),
        escalated=sum(each.decision == "escalated" for each in predictions),
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
    """Fill in a missing category, where the policy has exactly one for the decision.

    Rules and classifiers decide ``safe`` without a category. A single safe category is then meant.
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
    """Return the human label and the predicted label: the category if there is one, else the decision."""
    golden = prediction.category or prediction.golden
    if prediction.decision in UNDECIDED:
        return golden, prediction.decision
    return golden, prediction.predicted_category or prediction.decision


def is_wrong(prediction: Prediction) -> bool:
    """Return whether decision or category differ from the human label."""
    golden, predicted = labels_of(prediction)
    return not _is_correct(prediction) or (prediction.category is not None and golden != predicted)


def _is_correct(prediction: Prediction) -> bool:
    return prediction.decision == prediction.golden


def _score(name: str, hits: int, alarms: int, misses: int) -> Score:
    """Make a score from hits, false alarms and misses."""
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
    pairs = [
        labels_of(each) if by_category else (each.golden, each.decision) for each in predictions
    ]
    found = {label for pair in pairs for label in pair}
    always = set(codes) if by_category else {"violates", "safe"}
    order = [*codes, "violates", "safe", "escalated", *UNDECIDED]
    # A file that is read back may hold categories of another version.
    order += sorted(found - set(order))
    shown = [label for label in order if label in found | always]
    golden = tuple(label for label in shown if label not in UNDECIDED)
    counts = confusion_counts([down for down, _ in pairs], [across for _, across in pairs], shown)
    by_label = dict(zip(shown, counts, strict=True))
    return Confusion(golden, tuple(shown), tuple(tuple(by_label[label]) for label in golden))


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
    truth = [float(violates) for _, _, violates in known]
    bins = _bins([(confidence, violates) for confidence, _, violates in known])
    return Calibrated(
        len(known),
        any(each.calibrated for each in predictions),
        bins,
        sum(
            each.rows / len(known) * abs(each.confidence - each.violating.value)
            for each in bins
            if each.confidence is not None and each.violating.value is not None
        ),
        mean_square(truth, [confidence for confidence, _, _ in known]),
        mean_square(truth, [raw for _, raw, _ in known]),
    )


def _bins(known: Sequence[tuple[float, bool]]) -> tuple[Bin, ...]:
    """Sort confidences into ten bins. scikit-learn's ``calibration_curve`` drops empty bins and the counts."""
    sorted_in: list[list[tuple[float, bool]]] = [[] for _ in range(_BINS)]
    for confidence, violates in known:
        sorted_in[min(_BINS - 1, int(confidence * _BINS))].append((confidence, violates))
    return tuple(
        Bin(
            number / _BINS,
            (number + 1) / _BINS,
            len(rows),
            sum(confidence for confidence, _ in rows) / len(rows) if rows else None,
            wilson(sum(violates for _, violates in rows), len(rows)),
        )
        for number, rows in enumerate(sorted_in)
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
