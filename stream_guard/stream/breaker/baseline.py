"""The usual number of actions at an hour of the week. Pure.

Each replica writes how many actions it took in each hour. The usual number of an hour is the median of the same hour in
earlier weeks: the higher of the two in the middle, so that a week of outage does not make a limit strict.
"""

from __future__ import annotations

from statistics import median_high
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from stream_guard.settings.actions import Window

HOUR_MS: Final = 3_600_000
_WEEK_HOURS: Final = 168
_WEEKS_MIN: Final = 2


class Hours:
    """Actions of one scope, by hour since 1970.

    Args:
        weeks: how many earlier weeks count.
    """

    def __init__(self, weeks: int) -> None:
        self._weeks = weeks
        self._by_hour: dict[int, dict[str, int]] = {}

    def __bool__(self) -> bool:
        return bool(self._by_hour)

    def fold(self, hour: int, epoch: str, used: int) -> None:
        """Take what a replica took in an hour; a number never goes down."""
        of_hour = self._by_hour.setdefault(hour, {})
        of_hour[epoch] = max(used, of_hour.get(epoch, 0))

    def forget(self, hour: int) -> list[tuple[int, str]]:
        """Drop hours that are too old to count at this hour; return the hour and the replica of each number."""
        oldest = hour - _WEEK_HOURS * self._weeks - 1
        gone = [each for each in self._by_hour if each < oldest]
        return [(each, epoch) for each in gone for epoch in self._by_hour.pop(each)]

    def usual(self, window: Window, hour: int) -> int | None:
        """Return the usual number of actions in a window that ends in this hour.

        An hour's window touches two hours of the week, and the larger number counts. A day's is the sum of 24 hours.

        Returns:
            None as long as fewer than two earlier weeks are known.
        """
        if window == "hour":
            found = [self._of_hour(each) for each in (hour - 1, hour)]
            known = [one for one in found if one is not None]
            return max(known, default=None)
        of_day = [self._of_hour(each) for each in range(hour - 23, hour + 1)]
        return None if None in of_day else sum(filter(None, of_day))

    def _of_hour(self, hour: int) -> int | None:
        if not self._by_hour:
            return None
        first = min(self._by_hour)
        earlier = [hour - _WEEK_HOURS * week for week in range(1, self._weeks + 1)]
        # An hour without an action leaves no record: it counts as zero once the scope is known.
        known = [sum(self._by_hour.get(each, {}).values()) for each in earlier if each >= first]
        return median_high(known) if len(known) >= _WEEKS_MIN else None
