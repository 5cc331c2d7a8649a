"""A bounded memory of verdicts, to ignore duplicates. Pure."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from stream_guard.client.errors import ClientError

if TYPE_CHECKING:
    from stream_guard.client.verdicts import Verdict


class Window:
    """Remembers the last verdicts by id and by subject.

    The window is in memory and empty after a restart, so duplicates of earlier verdicts pass. A service that must
    act only once stores the ids with its actions (see ``examples/enforcement.py``).

    Args:
        size_max: number of verdicts to remember; the oldest are forgotten.

    Raises:
        ClientError: ``size_max`` is below 1.
    """

    def __init__(self, size_max: int) -> None:
        if size_max < 1:
            message = f"window_size_max: {size_max}; it must be at least 1"
            raise ClientError(message)
        self._size_max = size_max
        self._ids: OrderedDict[str, None] = OrderedDict()
        self._latest: OrderedDict[tuple[str, int, int, str], tuple[int, str]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._ids)

    def is_repeat(self, verdict: Verdict) -> bool:
        """Return whether a verdict with this id is remembered."""
        return verdict.id in self._ids

    def remember(self, verdict: Verdict) -> str | None:
        """Remember a verdict; return the id of the verdict that it supersedes, or None.

        A verdict supersedes one on the same record by another version of the same policy, unless that one was
        published later.
        """
        self._ids[verdict.id] = None
        subject, mine = verdict.subject, (verdict.timing.published, verdict.id)
        earlier = self._latest.get(subject)
        superseded = earlier[1] if earlier is not None and earlier[0] <= mine[0] else None
        if earlier is None or superseded is not None:
            self._latest[subject] = mine
            self._latest.move_to_end(subject)
        for memory in (self._ids, self._latest):
            while len(memory) > self._size_max:
                memory.popitem(last=False)
        return superseded if superseded != verdict.id else None
