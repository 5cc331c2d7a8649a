"""Decides how much to leave out while the judge cannot keep up. Pure: the time is an argument.

There are four levels. At 0, nothing is left out. At 1, each post is asked once, at low effort. At 2, the model is asked
only under policies with a severe category. At 3, it is not asked, and each policy's own rule for undetermined posts
applies. Exceeding a limit raises the level at once. The level falls one step at a time, after age and lag were below a
share of its limits for a hold time; so it does not oscillate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from stream_guard.settings import CascadeSettings

NORMAL: Final = 0
EFFORT: Final = 1
SEVERE_ONLY: Final = 2
UNDETERMINED: Final = 3
NAMES: Final = ("normal", "effort", "severe_only", "undetermined")
"""Names of the levels, for metrics and logs."""


class _Limits(NamedTuple):
    age_s: float | None
    lag_records: int | None

    def exceeded(self, age_s: float, lag_records: int | None, share: float = 1.0) -> bool:
        """Return whether either is above this share of its limit. An unknown value or an unset limit does not count."""
        if self.age_s is not None and age_s > self.age_s * share:
            return True
        if self.lag_records is None or lag_records is None:
            return False
        return lag_records > self.lag_records * share


class Pressure:
    """Decides the level.

    Attributes:
        level: from :data:`NORMAL` to :data:`UNDETERMINED`.
    """

    def __init__(self, settings: CascadeSettings) -> None:
        self._limits = (
            _Limits(settings.pressure_effort_age_s_max, settings.pressure_effort_lag_records_max),
            _Limits(
                settings.pressure_severe_only_age_s_max,
                settings.pressure_severe_only_lag_records_max,
            ),
            _Limits(
                settings.pressure_undetermined_age_s_max,
                settings.pressure_undetermined_lag_records_max,
            ),
        )
        self._ratio = settings.pressure_recovery_ratio
        self._hold_s = settings.pressure_hold_s
        self._calm_since_s: float | None = None
        self.level = NORMAL

    def update(self, now_s: float, age_s: float, lag_records: int | None) -> int:
        """Return the level after an observation.

        Args:
            now_s: on a monotonic clock, in s.
            age_s: of the oldest post at the judge, in s; 0 if there is none.
            lag_records: records still to be read; None if unknown.
        """
        exceeded = [
            level
            for level, limits in enumerate(self._limits, 1)
            if limits.exceeded(age_s, lag_records)
        ]
        wanted = max(exceeded, default=NORMAL)
        if wanted > self.level:
            self.level, self._calm_since_s = wanted, None
        elif self.level > NORMAL:
            self._settle(now_s, age_s, lag_records)
        return self.level

    def _settle(self, now_s: float, age_s: float, lag_records: int | None) -> None:
        if self._limits[self.level - 1].exceeded(age_s, lag_records, self._ratio):
            self._calm_since_s = None
        elif self._calm_since_s is None:
            self._calm_since_s = now_s
        if self._calm_since_s is not None and now_s - self._calm_since_s >= self._hold_s:
            self.level -= 1
            while self.level > NORMAL and not any(
                limit is not None for limit in self._limits[self.level - 1]
            ):
                self.level -= 1  # skip levels without limits
            self._calm_since_s = now_s if self.level > NORMAL else None
