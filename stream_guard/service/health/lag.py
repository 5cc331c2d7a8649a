"""Computes how far behind each partition is, as the age of its oldest unjudged record. Pure.

An age never falls while nothing is judged. Partitions that were lost are not reported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stream_guard.core.kafka_types import Partition
    from stream_guard.stream.progress import Standing


class LagWatch:
    """Turns standings into ages, and remembers since when unread records wait."""

    def __init__(self) -> None:
        self._waiting_since_ns: dict[Partition, int] = {}

    def ages_s(self, standings: Iterable[Standing], now_ns: int) -> dict[Partition, float]:
        """Return the age of each partition's oldest unjudged record, in s.

        If no record is in flight and some are unread, their own age is unknown. The time since this state began is then
        the lower limit.

        Args:
            standings: of every assigned partition.
            now_ns: Unix time in ns.
        """
        since, self._waiting_since_ns = self._waiting_since_ns, {}
        ages: dict[Partition, float] = {}
        for partition, behind, oldest_ns in standings:
            if oldest_ns is not None:
                begin_ns = oldest_ns
            elif behind:
                begin_ns = since.get(partition, now_ns)
            else:
                ages[partition] = 0.0
                continue
            self._waiting_since_ns[partition] = begin_ns
            ages[partition] = max(0.0, (now_ns - begin_ns) / 1e9)
        return ages
