"""The sums behind the benchmarks' tables: percentiles, ratios of pairs, loads at a latency, gains. Pure.

What they must never do: turn a figure that was not measured into a number; they return None for it.
"""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SUSTAINED: float = 0.95
"""A load is sustained where at least this share of it came out as fast as it went in."""


class Point(NamedTuple):
    """One point of a curve of latency over load.

    Attributes:
        offered: posts/s that were sent.
        achieved: posts/s that came out.
        p50_ms, p99_ms: from the append of a post to the append of its verdict.
    """

    offered: float
    achieved: float
    p50_ms: float
    p99_ms: float


def percentile(values: Sequence[float], share: float) -> float | None:
    """Return the smallest value that at least ``share`` of the values do not exceed (nearest rank); None of none."""
    if not values:
        return None
    rank = max(1, math.ceil(share * len(values)))
    return sorted(values)[rank - 1]


def median(values: Sequence[float | None]) -> float | None:
    """Return the median of what was measured; None where nothing was."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def ratios(over: Sequence[float | None], under: Sequence[float | None]) -> list[float | None]:
    """Return ``over / under`` of each pair. Raises ValueError where the two are not of one length."""
    return [None if a is None or not b else a / b for a, b in zip(over, under, strict=True)]


def interleaved(sides: Sequence[str], rounds: int) -> Iterator[tuple[int, str]]:
    """Yield (round, side), every other round backwards: what drifts weighs on all sides alike."""
    for number in range(rounds):
        for side in sides if number % 2 == 0 else reversed(sides):
            yield number, side


def sustained(points: Sequence[Point]) -> list[Point]:
    """Return the points up to the first that could not keep up, by load."""
    found: list[Point] = []
    for point in sorted(points):
        if point.achieved < SUSTAINED * point.offered:
            break
        found.append(point)
    return found


def load_within(points: Sequence[Point], p99_ms_max: float) -> float | None:
    """Return the highest load, in posts/s, up to which the p99 stays within a limit.

    Between the last sustained point within the limit and the next measured one, the p99 is taken to be a straight
    line; a next point that could not keep up counts for nothing. None where even the lowest load is over the limit.
    """
    best: Point | None = None
    for point in sustained(points):
        if point.p99_ms > p99_ms_max:
            if best is None:
                return None
            share = (p99_ms_max - best.p99_ms) / (point.p99_ms - best.p99_ms)
            return best.offered + share * (point.offered - best.offered)
        best = point
    return None if best is None else best.offered


def same_latency_ratio(ours: Sequence[Point], theirs: Sequence[Point]) -> float | None:
    """Return our load over theirs at one p99: the one that they have at the highest load that they sustain."""
    kept = sustained(theirs)
    if not kept:
        return None
    load = load_within(ours, kept[-1].p99_ms)
    return None if load is None else load / kept[-1].offered


def gained(value: float, worst: float, best: float, *, worth: float = 0.05) -> float | None:
    """Return the share of ``best - worst`` that ``value`` gains; None where that is under ``worth`` of ``worst``."""
    if best - worst < worth * worst:
        return None
    return (value - worst) / (best - worst)
