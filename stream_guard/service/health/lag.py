"""How far behind each partition is: in records, and in the age of the oldest record that is not judged. Pure.

What it must never do: let an age fall while nothing is judged, or speak of a partition that is not ours any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stream_guard.core.kafka_types import Partition
    from stream_guard.stream.progress import Standing


class LagWatch:
    """Turns standings into ages, and remembers since when records wait that nobody has read yet."""

    def __init__(self) -> None:
        self._waiting_since_ns: dict[Partition, int] = {}

    def look(self, standings: Iterable[Standing], now_ns: int) -> dict[Partition, float]:
        """Return the age of each partition's oldest unjudged record, in s.

        Where none is in flight and some are still to be read, their own age is not known: it is then at least the time
        since which that has been so.

        Args:
            standings: of every partition that is ours.
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
