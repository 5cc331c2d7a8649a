"""Computes the layout of the report's plots, in SVG units. The template draws them. Pure.

A plotting library would be the heaviest dependency, and a screen reader could not read its images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.offline.evaluation.figures import (
        Calibrated,
        Confusion,
        Figures,
        Interval,
        Score,
    )

__all__ = ["Bars", "Reliability", "bars_of", "confusion_shades", "reliability_of"]

PLOT: Final = 300.0
"""Length of an axis from 0 to 1."""
LEFT: Final = 150.0
"""Room for names on the left of bars."""
_MARGIN: Final = 46.0
_ROW: Final = 22.0
_GROUP: Final = 74.0
_RADIUS_MIN: Final = 3.0
_RADIUS_MAX: Final = 9.0


class Bar(NamedTuple):
    """One figure: kind, position, length and the ends of its interval; None where there is no figure."""

    kind: str
    y: float
    length: float | None
    low: float | None
    high: float | None
    caption: str


class Bars(NamedTuple):
    """Precision, recall and F1 of each label: a group of three bars each."""

    width: float
    height: float
    groups: Sequence[tuple[str, float, Sequence[Bar]]]


class Mark(NamedTuple):
    """One bin of the reliability curve: centre, radius by number of rows, interval, and caption."""

    x: float
    y: float
    radius: float
    low: float
    high: float
    caption: str


class Reliability(NamedTuple):
    """The reliability curve; ``line`` joins the marks."""

    size: float
    margin: float
    marks: Sequence[Mark]
    line: str


def bars_of(figures: Figures) -> Bars:
    """Lay out the scores of the categories, or of the decision where there are no categories."""
    scores = figures.categories or (figures.decision,)
    groups = []
    for number, score in enumerate(scores):
        top = 12 + number * _GROUP
        groups.append((f"{score.name} ({score.support})", top, _group(score, top)))
    return Bars(LEFT + PLOT + 60, 12 + len(scores) * _GROUP + 28, groups)


def _group(score: Score, top: float) -> list[Bar]:
    bars = []
    for row, (kind, interval) in enumerate(
        (("precision", score.precision), ("recall", score.recall), ("F1", score.f1))
    ):
        value = interval.value
        caption = f"{score.name}: {kind} {'not defined' if value is None else f'{value:.3f}'}"
        if interval.low is not None and interval.high is not None:
            caption += f", 95 % interval {interval.low:.3f} to {interval.high:.3f}"
        bars.append(
            Bar(
                kind,
                top + row * _ROW,
                None if value is None else value * PLOT,
                None if interval.low is None else interval.low * PLOT,
                None if interval.high is None else interval.high * PLOT,
                caption,
            )
        )
    return bars


def reliability_of(calibrated: Calibrated | None) -> Reliability | None:
    """Lay out the reliability curve; None where no confidence was measured."""
    if calibrated is None:
        return None
    marks = []
    most = max(each.rows for each in calibrated.bins)
    for each in calibrated.bins:
        share: Interval = each.violating
        if (
            each.confidence is None
            or share.value is None
            or share.low is None
            or share.high is None
        ):
            continue
        radius = _RADIUS_MIN + (_RADIUS_MAX - _RADIUS_MIN) * (each.rows / most) ** 0.5
        caption = (
            f"{each.rows} rows with a confidence of {each.low:.1f} to {each.high:.1f}, {each.confidence:.3f} on "
            f"average: {share.value:.3f} violate"
        )
        x, y = (_MARGIN + each.confidence * PLOT, _up(share.value))
        marks.append(Mark(x, y, radius, _up(share.low), _up(share.high), caption))
    line = " ".join(f"{mark.x:.1f},{mark.y:.1f}" for mark in marks)
    return Reliability(PLOT + 2 * _MARGIN, _MARGIN, marks, line)


def _up(share: float) -> float:
    return _MARGIN + (1 - share) * PLOT


def confusion_shades(confusion: Confusion) -> Sequence[Sequence[int]]:
    """Return the shade of each cell: its share of its row, in percent."""
    return [
        [round(100 * cell / total) if (total := sum(row)) else 0 for cell in row]
        for row in confusion.counts
    ]
