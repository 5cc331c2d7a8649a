"""One row of the table of metrics: it says what a metric is, and makes it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar, cast, overload

from prometheus_client import Counter, Gauge, Histogram

from stream_guard.telemetry.bulk_histogram import BulkHistogram
from stream_guard.telemetry.top_gauge import TopGauge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prometheus_client import CollectorRegistry

__all__ = ["MetricRow"]

_AnyMetric: TypeAlias = Counter | Gauge | Histogram | BulkHistogram | TopGauge
_Made = TypeVar("_Made", bound=_AnyMetric)


class MetricRow(Generic[_Made]):
    """One row of the table.

    The table makes the metric and keeps it in an attribute of its instance under the row's name, so reading it costs no
    more than any attribute.

    Args:
        kind: the class of the metric.
        name: as in the exposition format; counters end in ``_total`` there.
        help: what is counted, for ``/metrics`` and the reference.
        labels: the labels' names.
        values: the values of the only label, where they are known. Their series exist from the start, since no rate
            can be taken of a counter that first appears with 1.
        buckets: upper bounds, for histograms.
    """

    def __init__(
        self,
        kind: type[_Made],
        name: str,
        help: str,  # noqa: A002 - the exposition format's own word
        labels: tuple[str, ...] = (),
        *,
        values: Sequence[str] = (),
        buckets: Sequence[float] = (),
    ) -> None:
        self._kind = kind
        self._name = name
        self._help = help
        self._labels = labels
        self._values = values
        self._buckets = buckets

    @overload
    def __get__(self, metrics: None, owner: type) -> MetricRow[_Made]: ...
    @overload
    def __get__(self, metrics: object, owner: type) -> _Made: ...
    def __get__(self, metrics: object, owner: type) -> MetricRow[_Made] | _Made:
        """Return the row; the instance's own attribute comes before this one."""
        return self

    def make(self, registry: CollectorRegistry) -> _AnyMetric:
        """Return the metric, registered."""
        kind = cast("type[_AnyMetric]", self._kind)
        if issubclass(kind, BulkHistogram):
            label = (self._labels[0], self._values) if self._labels else None
            bulk = kind(self._name, self._help, self._buckets, label)
            registry.register(bulk)
            return bulk
        if issubclass(kind, TopGauge):
            group, member = self._labels
            top = kind(self._name, self._help, (group, member), 0, time.monotonic)
            registry.register(top)
            return top
        if issubclass(kind, Histogram):
            return kind(
                self._name, self._help, self._labels, buckets=self._buckets, registry=registry
            )
        made = kind(self._name, self._help, self._labels, registry=registry)
        for value in self._values:
            made.labels(value)
        return made
