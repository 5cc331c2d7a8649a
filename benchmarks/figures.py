"""Computes the figures of the benchmarks' tables: percentiles, ratios of pairs, loads at a latency, gains. Pure.

Returns None for a figure that was not measured.
"""

from __future__ import annotations

import itertools
import math
import statistics
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


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
    """Return the median of the measured values; None if there are none."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def ratios(over: Sequence[float | None], under: Sequence[float | None]) -> list[float | None]:
    """Return ``over / under`` of each pair. Raises ValueError if their lengths differ."""
    return [None if a is None or not b else a / b for a, b in zip(over, under, strict=True)]


def interleaved(sides: Sequence[str], rounds: int) -> Iterator[tuple[int, str]]:
    """Yield (round, side), every other round in reverse, so that drift affects all sides equally."""
    for number in range(rounds):
        for side in sides if number % 2 == 0 else reversed(sides):
            yield number, side


def p99_at(points: Sequence[Point], load: float) -> float | None:
    """Return the p99 in ms at a load, on a straight line between the measured ones; None outside of them."""
    for low, high in itertools.pairwise(sorted(points)):
        if low.offered <= load <= high.offered:
            share = (load - low.offered) / ((high.offered - low.offered) or 1.0)
            return low.p99_ms + share * (high.p99_ms - low.p99_ms)
    return None


def load_within(points: Sequence[Point], p99_ms_max: float) -> float | None:
    """Return the highest load, in posts/s, up to which the p99 stays within a limit; None where none does.

    Between the last measured load within the limit and the first over it, the p99 is taken to be a straight line.
    """
    best: Point | None = None
    for point in sorted(points):
        if point.p99_ms > p99_ms_max:
            if best is None:
                return None
            share = (p99_ms_max - best.p99_ms) / (point.p99_ms - best.p99_ms)
            return best.offered + share * (point.offered - best.offered)
        best = point
    return None if best is None else best.offered


class SameLatency(NamedTuple):
    """Two loads at one p99.

    Attributes:
        p99_ms: ours, at our load.
        ours, theirs: posts/s. Theirs is the lowest that was measured where even that is over the p99.
        within: whether theirs is within the p99; if not, the ratio is at least what it says.
    """

    p99_ms: float
    ours: float
    theirs: float
    within: bool

    @property
    def ratio(self) -> float:
        """Our load over theirs."""
        return self.ours / self.theirs


def same_latency(ours: Sequence[Point], theirs: Sequence[Point], load: float) -> SameLatency | None:
    """Return the load that the others carry at our p99 of a load; None if that load was not measured."""
    p99_ms = p99_at(ours, load)
    if p99_ms is None or not theirs:
        return None
    found = load_within(theirs, p99_ms)
    lowest = min(theirs).offered
    return SameLatency(p99_ms, load, lowest if found is None else found, found is not None)


def gained(value: float, worst: float, best: float, *, worth: float = 0.05) -> float | None:
    """Return the share of ``best - worst`` that ``value`` gains; None if that is under ``worth`` of ``worst``."""
    if best - worst < worth * worst:
        return None
    return (value - worst) / (best - worst)
