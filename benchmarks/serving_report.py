"""Turns the results of ``benchmarks.serving`` into tables, curves and targets. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from benchmarks.curves import Curve, draw
from benchmarks.figures import median, ratios, same_latency
from benchmarks.report import Table

if TYPE_CHECKING:
    from benchmarks.figures import Point
    from benchmarks.report import Report

STREAM_RATIO_MIN: Final = 1.1
BATCH_RATIO_MIN: Final = 1.5
GUARD: Final = "guard"
PLANNED_SHARE: Final = 0.7
"""Of the saturated rate: the load that docs/explanation/performance.md plans for."""


class Saturation(NamedTuple):
    """The result of a side at saturation.

    Attributes:
        rate: posts/s.
        engine_ms: CPU time of the engine's process for each post.
        front_ms: CPU time of all before it, for each post.
    """

    rate: float | None
    engine_ms: float
    front_ms: float


def fill_saturation(report: Report, found: dict[str, list[Saturation]]) -> None:
    """Add the table of saturation, and its target."""
    rates = {kind: [one.rate for one in rounds] for kind, rounds in found.items()}
    shares = {kind: median(ratios(rates[GUARD], theirs)) for kind, theirs in rates.items()}
    costs = {
        kind: (
            median([one.engine_ms for one in rounds]) or 0.0,
            median([one.front_ms for one in rounds]) or 0.0,
        )
        for kind, rounds in found.items()
    }
    columns = (
        *("side", "posts/s", "stream guard / side"),
        *("engine CPU ms/post", "other CPU ms/post", "posts per CPU s", "stream guard / side"),
    )
    rows = [
        (
            kind,
            median(rates[kind]),
            shares[kind],
            *cost,
            1_000 / sum(cost),
            sum(cost) / sum(costs[GUARD]),
        )
        for kind, cost in costs.items()
    ]
    report.tables.append(Table("Saturation, medians", columns, rows))
    if "stream" in shares:
        report.aim("guard / stream, saturated", shares["stream"], at_least=STREAM_RATIO_MIN)


def fill_curves(report: Report, points: dict[str, list[Point]], planned: float) -> None:
    """Add the curves, and the load of the others at our latency; targets are at the planned load in posts/s."""
    columns = ("side", "offered posts/s", "achieved posts/s", "p50 ms", "p99 ms")
    rows = [(kind, *point) for kind, found in points.items() for point in sorted(found)]
    report.tables.append(Table("Latency against load, append to verdict", columns, rows, digits=1))
    for name in ("p50", "p99"):
        lines = [
            Curve(kind, [(point.offered, getattr(point, f"{name}_ms")) for point in found])
            for kind, found in points.items()
        ]
        picture = draw(
            f"From append to verdict, {name}", "offered posts/s", "ms", lines, logarithmic=True
        )
        report.pictures[f"latency-{name}.svg"] = picture
    compared = []
    for kind, theirs in points.items():
        if kind == GUARD:
            continue
        for load in (*sorted(point.offered for point in points[GUARD]), planned):
            one = same_latency(points[GUARD], theirs, load)
            if one is not None:
                sign = "" if one.within else "under "
                compared.append(
                    (kind, one.ours, one.p99_ms, f"{sign}{one.theirs:,.1f}", f"{one.ratio:.2f}")
                )
        at_planned = same_latency(points[GUARD], theirs, planned)
        report.aim(
            f"guard / {kind}, load at the p99 of {PLANNED_SHARE:g} of saturation",
            at_planned.ratio if at_planned else None,
            at_least=BATCH_RATIO_MIN,
        )
    columns = ("side", "our posts/s", "our p99 ms", "its posts/s at that p99", "ratio, at least")
    report.tables.append(Table("Load at the same p99", columns, compared, digits=1))
