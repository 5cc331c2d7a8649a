"""A bounded memory of verdicts, to pass over repeats. Pure.

What it must never do: grow without bound, or take a verdict for a repeat that it has not seen.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from stream_guard.client.errors import ClientError

if TYPE_CHECKING:
    from stream_guard.client.verdicts import Verdict


class Window:
    """Remembers the last verdicts by id, and by what they are about.

    It is in memory: after a restart it is empty, and a repeat of what was handled before comes through. A service
    that must act once for ever keeps the ids where it keeps its actions (see ``examples/enforcement.py``).

    Args:
        size_max: verdicts remembered; the oldest are forgotten.

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
        """Whether a verdict of this id is among those remembered."""
        return verdict.id in self._ids

    def remember(self, verdict: Verdict) -> str | None:
        """Take a verdict in; return the id of the earlier one that it supersedes, if any.

        A later judgement of the same record under another version of the same policy supersedes the earlier; one
        that was published earlier and only comes later supersedes nothing.
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
