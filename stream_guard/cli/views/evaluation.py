"""Prints what an evaluation found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from stream_guard.cli.terminal import count_of, say, styled, write_table
from stream_guard.offline.evaluation.figures import labels_of

if TYPE_CHECKING:
    from stream_guard.offline.evaluation.comparison import Comparison
    from stream_guard.offline.evaluation.figures import Figures
    from stream_guard.offline.evaluation.predictions import Prediction
    from stream_guard.offline.evaluation.repetition import Repetition
    from stream_guard.offline.evaluation.report import Evaluation

__all__ = ["say_evaluation"]

_FLIPS_SHOWN_MAX: Final = 20


def say_evaluation(evaluation: Evaluation) -> None:
    """Print the scores, the comparison and the thresholds."""
    figures = evaluation.figures
    say(f"{evaluation.name} on {evaluation.source}: {count_of(figures.rows, 'post')}")
    _say_scores(figures)
    if figures.languages:
        _say_languages(figures)
    if figures.uncategorised:
        left = count_of(figures.uncategorised, "post")
        say(f"by category without {left}, whose label says only whether it violates")
    calibration = figures.calibration
    error = "" if calibration is None else f"; calibration error {calibration.ece:.3f}"
    say(
        f"not decided: {figures.undecided}; left to people: {figures.escalated}; "
        f"accuracy {figures.accuracy.value or 0:.3f}{error}; "
        f"{count_of(figures.cost.prompt_tokens, 'token')} in, {figures.cost.output_tokens:,} out, "
        f"{evaluation.seconds:.1f} s"
    )
    if evaluation.comparison is not None:
        _say_comparison(evaluation.comparison, str(evaluation.against))
        _say_cost(figures, evaluation.figures_against)
    if evaluation.repetition is not None:
        _say_repetition(evaluation.repetition)
    for each in evaluation.checks:
        reached = "no figure" if each.reached is None else f"{each.reached:.3f}"
        outcome = ("passed", "green") if each.passed else ("FAILED", "red")
        say(styled((f"{each.option} {each.bound:g}: {reached} ", ""), outcome))


def _say_scores(figures: Figures) -> None:
    rows = []
    for score in dict.fromkeys((figures.decision, *figures.categories)):
        values = (score.precision.value, score.recall.value, score.f1.value)
        f1 = score.f1
        interval = "" if f1.low is None or f1.high is None else f"{f1.low:.3f} to {f1.high:.3f}"
        shown = ("-" if value is None else f"{value:.3f}" for value in values)
        rows.append((score.name, str(score.support), str(score.predicted), *shown, interval))
    columns = ("label", "posts", "predicted", "precision", "recall", "F1", "95 %")
    write_table(columns, rows, right=columns[1:])


def _say_languages(figures: Figures) -> None:
    rows = []
    for part in figures.languages:
        score = part.decision
        values = (score.precision.value, score.recall.value, score.f1.value)
        shown = ("-" if value is None else f"{value:.3f}" for value in values)
        rows.append((part.name, str(part.rows), str(score.support), *shown))
    columns = ("language", "posts", "violating", "precision", "recall", "F1")
    write_table(columns, rows, right=columns[1:])


def _say_cost(this: Figures, against: Figures | None) -> None:
    """Print what each side cost: the price of another effort, or of more samples."""
    assert against is not None, "a comparison has the figures of both sides"
    said = (
        f"{each.cost.output_tokens:,} tokens out, {each.cost.seconds_p50:.2f} s a post (median)"
        for each in (against, this)
    )
    say(f"cost: there {next(said)}; here {next(said)}")


def _say_repetition(repetition: Repetition) -> None:
    known = [value for value in repetition.f1 if value is not None]
    f1 = f"; F1 {min(known):.3f} to {max(known):.3f}" if known else ""
    say(
        f"{repetition.runs} runs: {count_of(len(repetition.flips), 'flip')} "
        f"({repetition.flip_share.value or 0:.1%}), {len(repetition.moved)} with another category or rule alone{f1}"
    )
    if repetition.rules:
        rules = ", ".join(f"{each.rule} ({each.rows})" for each in repetition.rules)
        say(f"rules that some runs name and others do not: {rules}")
    rows = (*repetition.flips, *repetition.moved)
    for row in rows[:_FLIPS_SHOWN_MAX]:
        runs = ", ".join(" ".join((labels_of(each)[1], *each.rule_ids)) for each in row)
        say(f"  {_name(row[0])}: {runs}")
    _say_more(len(rows))


def _say_comparison(comparison: Comparison, against: str) -> None:
    say(
        f"against {against}: {count_of(len(comparison.flips), 'flip')} "
        f"({comparison.flip_share.value or 0:.1%}), {comparison.better} better, {comparison.worse} worse, "
        f"p = {comparison.p:.3g}"
    )
    for flip in comparison.flips[:_FLIPS_SHOWN_MAX]:
        say(f"  {_name(flip.this)}: {flip.against.decision} -> {flip.this.decision}")
    _say_more(len(comparison.flips))


def _say_more(rows: int) -> None:
    if rows > _FLIPS_SHOWN_MAX:
        say(f"  and {count_of(rows - _FLIPS_SHOWN_MAX, 'more row')}; --json has all of them")


def _name(row: Prediction) -> str:
    """Return the id of a row's post, or the row's number where the post has no id."""
    return f"row {row.row}" if row.id == str(row.row) else row.id
