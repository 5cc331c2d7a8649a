"""A Prometheus gauge that shows the largest few of any number of labels, in bounded memory."""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING, Final

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["HALF_LIFE_S", "TopGauge"]

HALF_LIFE_S: Final = 300.0
"""An addition this long ago, in s, counts half."""
_KEPT_PER_SHOWN: Final = 8


class TopGauge(Collector):
    """Rates of the labels that get the most, per second, averaged over about seven minutes.

    Counts are kept for eight times as many labels as are shown (Misra and Gries 1982). A label is missing, or its
    rate too low, by at most the rate of all labels divided by that number.

    Args:
        name, documentation: as in the exposition format.
        label_names: two labels: the group and the member.
        shown: how many are shown; 0 for none, then nothing is counted.
        now_s: monotonic time in s.
    """

    def __init__(
        self,
        name: str,
        documentation: str,
        label_names: tuple[str, str],
        shown: int,
        now_s: Callable[[], float],
    ) -> None:
        self._name = name
        self._documentation = documentation
        self.label_names = label_names
        self._now_s = now_s
        self.show(shown)
        self._counts: dict[tuple[str, str], float] = {}
        self._faded_s = now_s()

    def __len__(self) -> int:
        return len(self._counts)

    def show(self, shown: int) -> None:
        """Show so many from now on."""
        self.shown = shown
        self._kept = max(1, shown * _KEPT_PER_SHOWN)

    def add(self, added: Iterable[tuple[tuple[str, str], float]]) -> None:
        """Add to labels: pairs of a label and how much."""
        if not self.shown:
            return
        counts, most = self._counts, 2 * self._kept
        for label, count in added:
            counts[label] = counts.get(label, 0.0) + count
            if len(counts) > most:
                self._shrink()
                counts = self._counts

    def _shrink(self) -> None:
        """Take from every count the largest of those that are dropped: so a drop is never more than its share."""
        least = sorted(self._counts.values())[
            -self._kept - 1
        ]  # faster than heapq, which is not all C
        self._counts = {
            label: count - least for label, count in self._counts.items() if count > least
        }

    def _fade(self) -> None:
        now_s = self._now_s()
        kept = 0.5 ** ((now_s - self._faded_s) / HALF_LIFE_S)
        self._faded_s = now_s
        # What is below one in all is forgotten.
        self._counts = {
            label: count * kept for label, count in self._counts.items() if count * kept >= 1
        }

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the family, with the largest labels."""
        self._fade()
        family = GaugeMetricFamily(self._name, self._documentation, labels=self.label_names)
        largest = heapq.nlargest(self.shown, self._counts.items(), key=lambda item: item[1])
        for label, count in largest:
            family.add_metric(label, count * math.log(2) / HALF_LIFE_S)
        yield family
