"""Which post killed the engine? What was in flight at its death is tried again in small groups, then alone. Pure.

Theory of operation. Most deaths are no post's fault (memory, hardware, an operator's kill), so the trial must be short
where nobody is guilty; and a death costs a rebuild of minutes where a batch costs seconds. One by one, n posts cost
n steps and one death; halving costs log2(n) deaths. Groups of about the square root of n, tried one after the other,
cost 2 * sqrt(n) steps and two deaths at worst, and are the fastest of the three at the sizes of an engine's batch.
Only a post that was alone in the engine, for all of its trial, is ever found guilty: no neighbour can be blamed.

What it must never do: blame a post for a death that it shared, or try posts that are not suspected while any are.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")
ALONE_MAX: Final = 8
"""So few suspects are tried alone at once; groups would save no step."""


class Suspects(Generic[T]):
    """Those that were in flight at a death, in the order in which they are tried again."""

    def __init__(self) -> None:
        self._groups: deque[list[T]] = deque()
        self._on_trial: int = 0
        self._disturbed = False

    def __bool__(self) -> bool:
        return bool(self._groups)

    @property
    def on_trial(self) -> int:
        """How many were handed over by the last :meth:`next_group`; 0 where no trial runs."""
        return self._on_trial

    def next_group(self, wanted: Callable[[T], bool]) -> list[T]:
        """Return the next group to hand to the engine; nothing else may be in it meanwhile.

        Args:
            wanted: false for those that were given up in the meantime.

        Returns: empty once none is left, and the trials are over.
        """
        while self._groups:
            group = [suspect for suspect in self._groups.popleft() if wanted(suspect)]
            if group:
                self._on_trial = len(group)
                return group
        self._on_trial = 0
        return []

    def split(self, died_with: Sequence[T]) -> T | None:
        """Note a death.

        Args:
            died_with: those in flight that have not been given up. Where a trial ran, they were of its group.

        Returns: the one that was alone in the engine; it is not put back, that is for the caller to decide.
        """
        size, self._on_trial = self._on_trial, 0
        alone, self._disturbed = size == 1 and not self._disturbed, False
        if alone and died_with:
            return died_with[0]
        step = 1
        # A group of a trial is tried one by one: a third level would save few steps for another death.
        if not size and len(died_with) > ALONE_MAX:
            step = math.ceil(math.sqrt(len(died_with)))
        groups = [list(died_with[i : i + step]) for i in range(0, len(died_with), step)]
        self._groups.extendleft(reversed(groups))
        return None

    def disturb(self) -> None:
        """Note that something was cancelled: the engine may still be at it, so nobody is alone until it is rebuilt."""
        self._disturbed = True

    def try_again(self, suspect: T) -> None:
        """Put back one that was alone, to be tried alone, first."""
        self._groups.appendleft([suspect])
