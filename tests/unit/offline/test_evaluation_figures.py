"""Figures agree with scikit-learn's and SciPy's on the same predictions, and say how sure they are."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn import metrics
from sklearn.calibration import calibration_curve

from stream_guard.offline.calibrate.libraries import mcnemar_p
from stream_guard.offline.evaluation.comparison import compare
from stream_guard.offline.evaluation.figures import (
    _score,
    count,
    is_wrong,
    labels_of,
    name_categories,
    wilson,
)
from stream_guard.offline.evaluation.predictions import Prediction
from stream_guard.policies.store import load_policies

POLICY = load_policies(Path(__file__).parents[3] / "policies").policies["dangerous-content"]
CODES = {category.code: category.violates for category in POLICY.taxonomy.categories}


def some(seed: int, rows: int = 300, *, categories: bool = True) -> list[Prediction]:
    """Predictions that are right more often than not, with some that were not decided."""
    rng = random.Random(seed)  # noqa: S311 - made-up predictions
    made = []
    for row in range(rows):
        code = rng.choice(list(CODES))
        guess = code if rng.random() < 0.6 else rng.choice(list(CODES))
        decision = "violates" if CODES[guess] else "safe"
        undecided = rng.random() < 0.05
        confidence = rng.betavariate(4, 2) if CODES[guess] else rng.betavariate(2, 4)
        made.append(
            Prediction(
                row=row,
                id=str(row),
                sha256=str(row),
                language=rng.choice([None, "en", "de"]),
                violates=CODES[code],
                category=code if categories else None,
                decision=rng.choice(["undetermined", "failed"]) if undecided else decision,  # type: ignore[arg-type]
                predicted_category=None if undecided else guess,
                confidence=None if undecided else confidence,
                confidence_raw=None if undecided else confidence,
                tier=rng.choice(["rules", "safeguard"]),
                prompt_tokens=10,
                output_tokens=2,
                seconds=rng.random(),
            )
        )
    return made


@pytest.mark.parametrize("seed", range(5))
def test_the_decision_agrees_with_scikit_learn(seed: int) -> None:
    rows = some(seed)
    score = count(rows, POLICY).decision
    golden = [each.violates for each in rows]
    called = [each.decision == "violates" for each in rows]
    assert score.precision.value == pytest.approx(metrics.precision_score(golden, called))
    assert score.recall.value == pytest.approx(metrics.recall_score(golden, called))
    assert score.f1.value == pytest.approx(metrics.f1_score(golden, called))
    words = ["violates" if each.violates else "safe" for each in rows]
    accuracy = metrics.accuracy_score(words, [each.decision for each in rows])
    assert count(rows, POLICY).accuracy.value == pytest.approx(accuracy)


@pytest.mark.parametrize("seed", range(5))
def test_every_category_agrees_with_scikit_learn(seed: int) -> None:
    rows = some(seed)
    figures = count(rows, POLICY)
    golden, predicted = zip(*(labels_of(each) for each in rows), strict=True)
    names = [score.name for score in figures.categories]
    expected = metrics.precision_recall_fscore_support(golden, predicted, labels=names)
    for n, score in enumerate(figures.categories):
        shown = (score.precision.value, score.recall.value, score.f1.value, score.support)
        assert shown == pytest.approx([column[n] for column in expected])
    assert names == list(CODES)
    macro = metrics.f1_score(golden, predicted, labels=names, average="macro")
    assert figures.macro_f1 == pytest.approx(macro)


@pytest.mark.parametrize("categories", [True, False])
def test_the_confusion_matrix_agrees_with_scikit_learn(*, categories: bool) -> None:
    rows = some(3, categories=categories)
    confusion = count(rows, POLICY).confusion
    if categories:
        pairs = [labels_of(each) for each in rows]
    else:
        pairs = [("violates" if each.violates else "safe", each.decision) for each in rows]
    golden, predicted = zip(*pairs, strict=True)
    expected = metrics.confusion_matrix(golden, predicted, labels=list(confusion.predicted))
    assert [list(row) for row in confusion.counts] == expected[: len(confusion.golden)].tolist()
    assert sum(map(sum, confusion.counts)) == len(rows)
    assert {"undetermined", "failed"} <= set(confusion.predicted)


def test_the_reliability_curve_and_the_brier_score_agree_with_scikit_learn() -> None:
    rows = some(4, 1_000)
    figures = count(rows, POLICY).calibration
    assert figures is not None
    known = [(each.violates, each.confidence) for each in rows if each.confidence is not None]
    golden, confidence = (np.array(column) for column in zip(*known, strict=True))
    share, mean = calibration_curve(golden, confidence, n_bins=10)
    filled = [each for each in figures.bins if each.rows]
    assert [each.violating.value for each in filled] == pytest.approx(list(share))
    assert [each.confidence for each in filled] == pytest.approx(list(mean))
    assert figures.brier == pytest.approx(metrics.brier_score_loss(golden, confidence))
    weights = np.array([each.rows for each in filled]) / len(known)
    assert figures.ece == pytest.approx(float(np.sum(weights * np.abs(share - mean))))
    assert figures.rows == len(known) < len(rows)


@pytest.mark.parametrize(
    ("hits", "rows"), [(0, 1), (1, 1), (0, 20), (7, 20), (41, 41), (999, 1000)]
)
def test_wilsons_interval_agrees_with_scipy(hits: int, rows: int) -> None:
    expected = binomtest(hits, rows).proportion_ci(method="wilson")
    assert wilson(hits, rows) == pytest.approx((hits / rows, expected.low, expected.high))


@pytest.mark.parametrize(("better", "worse"), [(0, 0), (1, 0), (5, 5), (9, 2), (30, 12)])
def test_mcnemars_test_agrees_with_scipy(better: int, worse: int) -> None:
    expected = binomtest(better, better + worse).pvalue if better + worse else 1.0
    assert mcnemar_p(better, worse) == pytest.approx(expected)


def test_the_interval_of_f1_is_that_of_drawing_rows_again_where_there_are_many() -> None:
    rows = some(5, 400)
    f1 = count(rows, POLICY).decision.f1
    golden = np.array([each.violates for each in rows])
    called = np.array([each.decision == "violates" for each in rows])
    rng = np.random.default_rng(1)
    drawn = [rng.integers(0, len(rows), len(rows)) for _ in range(500)]
    low, high = np.percentile([metrics.f1_score(golden[d], called[d]) for d in drawn], [2.5, 97.5])
    assert f1.low == pytest.approx(low, abs=0.02)
    assert f1.high == pytest.approx(high, abs=0.02)


@pytest.mark.parametrize("rows", [10, 40])
def test_the_interval_of_f1_holds_the_truth_nineteen_times_in_twenty_with_few_rows_too(
    rows: int,
) -> None:
    # Of all rows 30 % are hits, 8 % false alarms, 7 % misses: F1 is 0.8.
    rng = np.random.default_rng(2)
    held = 0
    for hits, alarms, misses, _ in rng.multinomial(rows, [0.30, 0.08, 0.07, 0.55], size=2_000):
        f1 = _score("x", int(hits), int(alarms), int(misses)).f1
        held += f1.low is None or f1.high is None or f1.low <= 0.8 <= f1.high
    assert 0.93 <= held / 2_000 <= 0.985


def test_what_was_never_found_is_not_taken_for_certain() -> None:
    f1 = _score("x", 0, 3, 5).f1
    assert (f1.value, f1.low) == (0.0, 0.0)
    assert f1.high is not None
    assert f1.high > 0.3


def test_tiers_and_languages_are_counted_apart_and_add_up() -> None:
    rows = some(7)
    figures = count(rows, POLICY)
    for slices in (figures.tiers, figures.languages):
        assert sum(part.rows for part in slices) == len(rows)
        assert sum(part.undecided for part in slices) == figures.undecided
        assert sum(part.cost.prompt_tokens for part in slices) == figures.cost.prompt_tokens
    assert {part.name for part in figures.languages} == {"en", "de", "none given"}
    german = [each for each in rows if each.language == "de"]
    golden, called = ([x(each) for each in german] for x in (_golden, _called))
    (part,) = (part for part in figures.languages if part.name == "de")
    assert part.decision.f1.value == pytest.approx(metrics.f1_score(golden, called))


def _golden(each: Prediction) -> bool:
    return each.violates


def _called(each: Prediction) -> bool:
    return each.decision == "violates"


def test_what_was_never_called_has_no_precision_and_a_row_alone_has_figures() -> None:
    rows = [some(8, 1)[0]]
    assert count(rows, POLICY).rows == 1
    safe = Prediction(1, "1", "", None, violates=True, category=None, decision="safe")
    score = count([safe], POLICY).decision
    assert (score.precision.value, score.recall.value, score.f1.value) == (None, 0.0, 0.0)


def test_a_comparison_tells_flips_from_moves_and_better_from_worse() -> None:
    def row(n: int, decision: str, category: str, *, violates: bool = True) -> Prediction:
        return Prediction(n, str(n), "", None, violates, None, decision, category)  # type: ignore[arg-type]

    this = [
        row(1, "violates", "DC1"),
        row(2, "safe", "DC0"),
        row(3, "violates", "DC2"),
        row(4, "safe", "DC0"),
    ]
    other = [
        row(3, "violates", "DC1"),
        row(1, "safe", "DC0"),
        row(2, "undetermined", ""),
        row(4, "safe", "DC0"),
    ]
    found = compare(this, other, "x")
    assert [flip.this.row for flip in found.flips] == [1, 2]
    assert [flip.this.row for flip in found.moved] == [3]
    assert (found.better, found.worse, found.flip_share.value) == (1, 0, 0.5)


def test_safe_without_a_category_is_the_only_safe_one_and_a_violation_stays_as_it_is() -> None:
    rows = [
        Prediction(1, "1", "", None, violates=False, category="DC0", decision="safe"),
        Prediction(2, "2", "", None, violates=True, category="DC1", decision="violates"),
        Prediction(3, "3", "", None, violates=False, category="DC0", decision="undetermined"),
    ]
    named = name_categories(rows, POLICY)
    assert [each.predicted_category for each in named] == ["DC0", None, None]
    assert [is_wrong(each) for each in named] == [False, True, True]
