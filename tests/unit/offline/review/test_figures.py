"""Quality is estimated without bias from a sample, with intervals that hold; agreement is Cohen's kappa."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from sklearn.metrics import cohen_kappa_score

from stream_guard.offline.calibrate.libraries import wilson_bounds
from stream_guard.offline.review.figures import (
    Estimate,
    Row,
    agreement,
    kappa,
    qualities,
    wilson,
)


def rows(
    machine: str, person: str | None, count: int, share: float = 1.0, category: str | None = None
) -> list[Row]:
    return [Row("spam", machine, category, share, person, category if person else None)] * count


def test_the_interval_of_equal_weights_is_that_of_the_library() -> None:
    for hits, count in ((0, 10), (3, 10), (10, 10), (450, 1_000)):
        assert wilson(hits / count, count) == pytest.approx(wilson_bounds(hits, count), abs=1e-9)


def test_a_safe_verdict_stands_for_as_many_as_its_share_says() -> None:
    (quality, *_) = qualities(
        [
            *rows("violates", "violates", 80),
            *rows("violates", "safe", 20),
            *rows("safe", "safe", 95, share=0.01),
            *rows("safe", "violates", 5, share=0.01),
        ]
    )
    assert quality.precision.value == pytest.approx(0.8)
    assert quality.recall.value == pytest.approx(80 / (80 + 500))
    assert (quality.drawn, quality.decided) == (200, 200)


def test_a_draw_without_a_decision_counts_as_the_decided_ones_of_its_stratum() -> None:
    decided = [
        *rows("violates", "violates", 10),
        *rows("safe", "safe", 9),
        *rows("safe", "violates", 1),
    ]
    (whole, *_) = qualities(decided)
    (part, *_) = qualities([*decided, *rows("safe", None, 10)])
    assert whole.recall.value == pytest.approx(10 / 11)
    assert part.recall.value == pytest.approx(10 / 12)
    assert (part.drawn, part.decided) == (30, 20)


def test_no_mistake_found_is_not_certainty() -> None:
    (quality, *_) = qualities(
        [*rows("violates", "violates", 100), *rows("safe", "safe", 100, share=0.01)]
    )
    assert quality.recall.value == 1
    assert quality.recall.low is not None
    assert quality.recall.low < 0.5  # 3 of 10,000 safe verdicts in 100 would hardly be seen
    assert quality.precision.low is not None
    assert 0.9 < quality.precision.low < 1


def test_what_nobody_looked_at_has_no_figure() -> None:
    (quality, *_) = qualities(rows("violates", "violates", 10))
    assert quality.recall == Estimate(None)
    (quality, *_) = qualities(rows("safe", "safe", 10))
    assert quality.precision == Estimate(None)


def test_a_category_is_found_where_people_name_the_same() -> None:
    found = qualities(
        [
            *rows("violates", "violates", 6, category="S1"),
            Row("spam", "violates", "S1", 1.0, "violates", "S2"),
            *rows("violates", "violates", 3, category="S2"),
            Row("spam", "safe", None, 1.0, "violates", "S1"),
            *rows("safe", "safe", 9),
        ]
    )
    by_category = {quality.category: quality for quality in found}
    assert list(by_category) == [None, "S1", "S2"]
    assert by_category["S1"].precision.value == pytest.approx(6 / 7)
    assert by_category["S1"].recall.value == pytest.approx(6 / 7)
    assert by_category["S2"].precision.value == pytest.approx(1)
    assert by_category["S2"].recall.value == pytest.approx(3 / 4)


def test_the_intervals_hold_the_truth_as_often_as_they_say() -> None:
    dice = random.Random(7)  # noqa: S311 - a seeded experiment
    population = Counter(
        {("violates", "violates"): 800, ("violates", "safe"): 200, ("safe", "violates"): 120}
    )
    safe, shares = 8_880, {"violates": 0.25, "safe": 0.04}
    precision, recall = 800 / 1_000, 800 / 920
    held = Counter[str]()
    values = []
    times = 300
    for _ in range(times):
        drawn: list[Row] = []
        for (machine, person), count in population.items():
            share = shares[machine]
            drawn += rows(machine, person, sum(dice.random() < share for _ in range(count)), share)
        drawn += rows("safe", "safe", sum(dice.random() < 0.04 for _ in range(safe)), 0.04)
        (quality, *_) = qualities(drawn)
        for name, truth in (("precision", precision), ("recall", recall)):
            estimate: Estimate = getattr(quality, name)
            assert estimate.low is not None
            assert estimate.high is not None
            held[name] += estimate.low <= truth <= estimate.high
        values.append(quality.recall.value)
    assert held["precision"] >= 0.92 * times
    assert held["recall"] >= 0.92 * times
    assert sum(v for v in values if v is not None) / times == pytest.approx(recall, abs=0.01)


def test_kappa_is_that_of_the_library() -> None:
    pairs = [("safe", "safe")] * 20 + [("violates", "violates")] * 15 + [("safe", "violates")] * 5
    first, second = zip(*pairs, strict=True)
    assert kappa(pairs) == pytest.approx(cohen_kappa_score(first, second))
    assert kappa([]) is None
    assert kappa([("safe", "safe")]) is None
    assert kappa([("safe", "violates"), ("violates", "safe")]) == pytest.approx(-1)


def test_agreement_takes_the_first_decisions_of_two_people() -> None:
    figures = agreement(
        [
            ("spam", [("r-1", "safe"), ("r-2", "safe")]),
            ("spam", [("r-1", "violates"), ("r-1", "safe"), ("r-2", "violates"), ("l-1", "safe")]),
            ("spam", [("r-1", "safe"), ("r-3", "violates")]),
            ("hate", [("r-1", "safe")]),
        ]
    )
    assert list(figures["policies"]) == ["spam"]
    assert figures["policies"]["spam"]["pairs"] == 3
    assert figures["policies"]["spam"]["agree"] == pytest.approx(2 / 3)
    assert {name: one["pairs"] for name, one in figures["reviewers"].items()} == {
        "r-1": 3,
        "r-2": 2,
        "r-3": 1,
    }
