"""What the comparison with consumers round a server makes of its runs: tables, and targets at the right places."""

from __future__ import annotations

import math

import pytest

from benchmarks.figures import Point
from benchmarks.http_consumers import read_answer, violation_probability
from benchmarks.report import Report
from benchmarks.serving_report import Saturation, fill_curves, fill_saturation


def report() -> Report:
    return Report("serving", "", {})


def test_saturation_compares_rates_by_round_and_cpu_by_medians() -> None:
    made = report()
    fill_saturation(
        made,
        {
            "guard": [Saturation(30.0, 20.0, 5.0), Saturation(60.0, 20.0, 5.0)],
            "stream": [Saturation(20.0, 25.0, 15.0), Saturation(50.0, 25.0, 15.0)],
        },
    )
    (table,) = made.tables
    assert table.rows[0] == ("guard", 45.0, 1.0, 20.0, 5.0, 40.0, 1.0)
    assert table.rows[1] == ("stream", 35.0, pytest.approx(1.35), 25.0, 15.0, 25.0, 1.6)
    (target,) = made.targets
    assert (target.value, target.state) == (pytest.approx(1.35), "reached")


def test_a_side_that_did_not_run_misses_the_target() -> None:
    made = report()
    fill_saturation(
        made, {"guard": [Saturation(30.0, 20.0, 5.0)], "stream": [Saturation(None, 25.0, 15.0)]}
    )
    assert [target.state for target in made.targets] == ["missed"]


def test_curves_are_judged_at_the_load_that_is_planned_for() -> None:
    ours = [Point(10, 10, 5, 100), Point(20, 20, 5, 200)]
    theirs = [Point(5, 5, 5, 100), Point(12, 12, 5, 240)]
    made = report()
    fill_curves(made, {"guard": ours, "batch": theirs}, 14.0)
    (target,) = made.targets
    assert target.value == pytest.approx(14 / 7)
    assert target.state == "reached"
    assert sorted(made.pictures) == ["latency-p50.svg", "latency-p99.svg"]
    compared = made.tables[-1]
    assert [row[1] for row in compared.rows] == [10, 20, 14.0]
    assert compared.rows[2] == ("batch", 14.0, pytest.approx(140), "7.0", "2.00")


def test_a_planned_load_that_was_not_measured_misses_the_target() -> None:
    made = report()
    fill_curves(made, {"guard": [Point(10, 10, 5, 100)], "batch": [Point(5, 5, 5, 100)]}, 14.0)
    assert [(target.value, target.state) for target in made.targets] == [(None, "missed")]


def test_a_consumer_reads_the_answer_and_how_likely_a_violation_is() -> None:
    text = (
        '<|channel|>analysis<|message|>"violation":0 maybe<|end|><|start|>assistant'
        '<|channel|>final<|message|>{"violation":1,"category":"A","rationale":"So."}<|return|>'
    )
    assert read_answer(text) == ("violates", "A", "So.")
    assert read_answer("none")[0] == "undetermined"
    tokens = ["{", '"viol', 'ation"', ":", "1", ",", "0"]
    logprobs = [0.0, 0.0, 0.0, 0.0, math.log(0.75), 0.0, 0.0]
    assert violation_probability({"tokens": tokens, "token_logprobs": logprobs}) == pytest.approx(
        0.75
    )
    tokens[4] = "0"
    assert violation_probability({"tokens": tokens, "token_logprobs": logprobs}) == pytest.approx(
        0.25
    )
    assert violation_probability({"tokens": ["1"], "token_logprobs": [0.0]}) is None
