"""Counts how often the answer of an attempt without a grammar counts, and stops such attempts where that is seldom."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from stream_guard.core.vocabulary import Effort

__all__ = ["COUNTED_MIN", "LOOKED_AT", "FirstAttempts"]

LOOKED_AT: Final = 256
"""So many of the last first attempts are looked at."""
COUNTED_MIN: Final = 0.75
"""Share of first attempts whose answers must count, where nobody says another one."""
_log = structlog.get_logger(__name__)


class FirstAttempts:
    """Counts first attempts without a grammar under one policy.

    Args:
        policy, effort: in the log.
        may_stop: whether there are to be no more of them where too few count.
        counted_min: share of them whose answers must count. Below it, asking twice costs more than the grammar does.

    Attributes:
        stopped: whether there are no more of them.
    """

    def __init__(
        self, policy: str, effort: Effort, *, may_stop: bool, counted_min: float = COUNTED_MIN
    ) -> None:
        self._policy = policy
        self._effort = effort
        self._may_stop = may_stop
        self._counted_min = counted_min
        self._last: deque[bool] = deque(maxlen=LOOKED_AT)
        self._counted = 0
        self._told = False
        self.stopped = False

    def record(self, *, counts: bool) -> None:
        """Record whether the answer of one counts; log once if too few do."""
        if self._told:
            return
        if len(self._last) == LOOKED_AT:
            self._counted -= self._last[0]
        self._last.append(counts)
        self._counted += counts
        if len(self._last) < LOOKED_AT or self._counted >= self._counted_min * LOOKED_AT:
            return
        self._told, self.stopped = True, self._may_stop
        _log.warning(
            "first_attempts_seldom_count",
            policy=self._policy,
            effort=self._effort,
            share=round(self._counted / LOOKED_AT, 2),
            constraint="always" if self.stopped else "on_retry",
            remedy="set engine.constraint to always",
        )
