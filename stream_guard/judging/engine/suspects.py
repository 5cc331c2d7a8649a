"""Finds the post that killed the engine: retries the posts in flight at its death in small groups, then alone. Pure.

Most deaths have another cause (memory, hardware, an operator's kill), so the trial must be short if no post is at
fault. A death costs a rebuild of minutes; a batch costs seconds. One by one, n posts cost n steps and one death.
Halving costs log2(n) deaths. Groups of about sqrt(n), tried in turn, cost 2 * sqrt(n) steps and two deaths at worst.
They are the fastest of the three at the sizes of an engine's batch. A post is rejected only if it was alone in the
engine during its whole trial. While there are suspects, no other post is tried.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")
ALONE_MAX: Final = 8
"""Up to so many suspects are tried alone at once, since groups would save no step."""


class Suspects(Generic[T]):
    """Posts that were in flight at a death, in the order of their retries."""

    def __init__(self) -> None:
        self._groups: deque[list[T]] = deque()
        self._on_trial: int = 0
        self._disturbed = False

    def __bool__(self) -> bool:
        return bool(self._groups)

    @property
    def on_trial(self) -> int:
        """Size of the group that the last :meth:`next_group` returned; 0 if no trial runs."""
        return self._on_trial

    def next_group(self, wanted: Callable[[T], bool]) -> list[T]:
        """Return the next group for the engine, which must hold nothing else during the trial.

        Args:
            wanted: false for suspects that were cancelled in the meantime.

        Returns: empty once no suspect is left.
        """
        while self._groups:
            group = [suspect for suspect in self._groups.popleft() if wanted(suspect)]
            if group:
                self._on_trial = len(group)
                return group
        self._on_trial = 0
        return []

    def split(self, died_with: Sequence[T]) -> T | None:
        """Record a death.

        Args:
            died_with: the posts in flight that are not cancelled. During a trial they belong to its group.

        Returns: the post that was alone in the engine, or None. The caller decides whether to retry it.
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
        """Record a cancellation: the engine may still work on that post, so no post counts as alone until a rebuild."""
        self._disturbed = True

    def try_again(self, suspect: T) -> None:
        """Retry a post that was alone, again alone, before all others."""
        self._groups.appendleft([suspect])
