"""Draws curves as SVG with matplotlib: legible without colour, and the same bytes for the same figures.

Opens no window, and joins only points that a series has.
"""

from __future__ import annotations

import io
from itertools import cycle
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

_MARKS = "os^Dv*"


class Curve(NamedTuple):
    """One line: its name, and its points as (x, y)."""

    name: str
    points: Sequence[tuple[float, float]]


def draw(title: str, x: str, y: str, curves: Sequence[Curve], *, logarithmic: bool = False) -> str:
    """Return a picture of curves as SVG.

    Args:
        title: above the picture.
        x: the axis's name, with its unit.
        y: the same.
        curves: lines, told apart by marks as well as by colour.
        logarithmic: of the y axis.
    """
    import matplotlib as mpl

    mpl.use("svg")
    # Else ids are random, and each run another file.
    settings: Any = {"svg.hashsalt": "stream-guard", "svg.fonttype": "none", "font.size": 10}
    with mpl.rc_context(settings):
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 4.2), layout="constrained")
        axes = figure.subplots()
        for curve, mark in zip(curves, cycle(_MARKS), strict=False):
            points = sorted(curve.points)
            axes.plot([a for a, _ in points], [b for _, b in points], marker=mark, label=curve.name)
        axes.set(title=title, xlabel=x, ylabel=y)
        if logarithmic:
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
        axes.grid(visible=True, alpha=0.3)
        if curves:
            axes.legend()
        picture = io.StringIO()
        figure.savefig(picture, format="svg", metadata={"Date": None})
    return picture.getvalue()
