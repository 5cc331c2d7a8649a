"""Reads histograms from a page of metrics: quantiles as PromQL's ``histogram_quantile``, and bounds on the longest.

Gives no figure for an empty histogram, or for one that does not determine it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeAlias

from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Sequence

Buckets: TypeAlias = "list[tuple[float, float]]"
"""(upper edge, how many are not above it), by edge; the last edge is infinite."""


def buckets_of(page: str, name: str, **labels: str) -> Buckets:
    """Return a histogram of a page, summed over the series with these labels; empty if there is none."""
    found: dict[float, float] = {}
    for family in text_string_to_metric_families(page):
        if family.name != name:
            continue
        for sample in family.samples:
            if sample.name != f"{name}_bucket" or not labels.items() <= sample.labels.items():
                continue
            edge = float(sample.labels["le"])
            found[edge] = found.get(edge, 0.0) + sample.value
    return sorted(found.items())


def since(before: Sequence[tuple[float, float]], now: Sequence[tuple[float, float]]) -> Buckets:
    """Return the difference of a histogram between two pages of one process."""
    counted = dict(before)
    return [(edge, count - counted.get(edge, 0.0)) for edge, count in now]


def quantile(buckets: Sequence[tuple[float, float]], share: float) -> float | None:
    """Return the value that ``share`` of all do not exceed, on a straight line within its bucket.

    As ``histogram_quantile`` of Prometheus: of the last, open bucket it is the lower edge. None where nothing was seen.
    """
    if not buckets or not buckets[-1][1]:
        return None
    rank = share * buckets[-1][1]
    low = below = 0.0
    for edge, count in buckets:
        if count >= rank:
            if math.isinf(edge):
                return low
            return low + (edge - low) * (rank - below) / (count - below) if count > below else low
        low, below = edge, count
    return low


def longest(buckets: Sequence[tuple[float, float]]) -> float | None:
    """Return the upper edge of the highest bucket that has something in it: nothing was longer. None of nothing."""
    if not buckets or not buckets[-1][1]:
        return None
    return next(edge for edge, count in buckets if count == buckets[-1][1])
