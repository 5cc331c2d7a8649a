"""Reads a replica's page of metrics: what the live view and the console show. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Figure", "read_figures", "summed"]

_PREFIX: Final = "stream_guard_"
_LARGEST: Final = frozenset(
    {"stream_guard_oldest_unjudged_age_seconds", "stream_guard_pressure_level"}
)
"""For these the largest value is shown, not the sum."""


class Figure(NamedTuple):
    """One value of a metric; the labels as pairs in the order of their names."""

    name: str
    labels: tuple[tuple[str, str], ...]
    value: float


def read_figures(page: str) -> list[Figure]:
    """Return our metrics of a page, without the buckets of histograms. Raises ValueError where it holds none."""
    # A page also has vLLM's metrics, ten times as many.
    ours = "\n".join(line for line in page.splitlines() if _PREFIX in line)
    found = list(_figures(ours))
    if not found:
        raise ValueError("no metrics of Stream Guard")
    return found


def _figures(page: str) -> Iterator[Figure]:
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if sample.name.startswith(_PREFIX) and not sample.name.endswith("_bucket"):
                yield Figure(sample.name, tuple(sorted(sample.labels.items())), sample.value)


def summed(page: str) -> dict[str, float]:
    """Return the values of our metrics by name. Raises ValueError where the page holds no metrics."""
    values: dict[str, float] = {}
    for name, _, value in _figures(page):
        before = values.get(name, 0.0)
        values[name] = max(before, value) if name in _LARGEST else before + value
    return values
