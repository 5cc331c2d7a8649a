"""Bounds the expanded bytes that one poll takes, which aiokafka bounds by their number alone.

A few kB of compressed records can be hundreds of posts of 1 MiB each.
"""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from aiokafka.consumer.fetcher import FetchResult

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["BoundedFetchResult", "poll_bytes"]


class _Left:
    """What the poll that is under way may still take, in bytes."""

    __slots__ = ("size_bytes",)

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes


_LEFT: Final[ContextVar[_Left | None]] = ContextVar("poll_bytes_left", default=None)


@contextlib.contextmanager
def poll_bytes(bytes_max: int) -> Iterator[None]:
    """Bound the polls in this context. Each partition still yields at least one record, so that reading goes on."""
    token = _LEFT.set(_Left(bytes_max))
    try:
        yield
    finally:
        _LEFT.reset(token)


class BoundedFetchResult(FetchResult):  # type: ignore[misc] # aiokafka ships no types
    """aiokafka's fetched records of one partition, which end where the poll's bytes do; the rest stays for the next."""

    def getall(self, max_records: int | None = None) -> list[Any]:
        """Return the next records."""
        left = _LEFT.get()
        if left is None:
            return list(super().getall(max_records))
        if not self.check_assignment(self._topic_partition) or not self.has_more():
            return []
        taken: list[Any] = []
        count_max = max_records or 1 << 62
        for record in self._partition_records:
            taken.append(record)
            left.size_bytes -= record.serialized_value_size
            if left.size_bytes <= 0 or len(taken) >= count_max:
                self._update_position()
                break
        else:
            self._update_position()
            self._partition_records: Any = None
        return taken
