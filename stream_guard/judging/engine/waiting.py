"""Holds the requests that the engine has no room for yet, and says which one enters it next. Pure: time is an argument.

A judge adds what it accepts, and calls :meth:`Waiting.next` only when there is room for a request: the choice is made
as late as possible. What :meth:`Waiting.next` returned is no longer in the queue. A queue can be made of others, for
instance of one for each group of requests, because all of them have the methods of :class:`Waiting`.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Protocol, TypeVar

from stream_guard.judging.delivery import Pending

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["FirstComeFirstServed", "Waiting"]

PendingT = TypeVar("PendingT", bound=Pending)


class Waiting(Protocol[PendingT]):
    """A queue of requests in some order. The time never goes backwards from one call to the next."""

    def add(self, entries: Iterable[PendingT], now_s: float) -> None:
        """Queue requests, in the order of their arrival. No id may be in the queue twice.

        Args:
            entries: the requests.
            now_s: monotonic time in s.
        """

    def next(self, now_s: float) -> PendingT | None:
        """Take out the request that enters the engine now; None only if the queue is empty.

        Args:
            now_s: monotonic time in s.
        """

    def discard(self, request_id: str) -> None:
        """Take out a request that was cancelled; do nothing if it is not in the queue."""

    def clear(self) -> None:
        """Take out all requests."""

    def __len__(self) -> int: ...


class FirstComeFirstServed(Waiting[PendingT]):
    """The plain order: whatever came first enters first."""

    def __init__(self) -> None:
        self._entries: OrderedDict[str, PendingT] = OrderedDict()

    def add(self, entries: Iterable[PendingT], now_s: float) -> None:  # noqa: ARG002 - the order is enough
        """Queue requests."""
        for entry in entries:
            self._entries[entry.request.id] = entry

    def next(self, now_s: float) -> PendingT | None:  # noqa: ARG002 - the same
        """Take out the oldest request; None if the queue is empty."""
        return self._entries.popitem(last=False)[1] if self._entries else None

    def discard(self, request_id: str) -> None:
        """Take out a request; do nothing if it is not in the queue."""
        self._entries.pop(request_id, None)

    def clear(self) -> None:
        """Take out all requests."""
        self._entries.clear()

    def __len__(self) -> int:
        return len(self._entries)
