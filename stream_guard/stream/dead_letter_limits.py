"""When dead letters say that the deployment is wrong and not the posts. Pure: the time is an argument.

Two limits, asked before a dead letter is written: how many records may fail in a row, and
what share of the last ones may. Parsing and judging are counted apart, each by limits of its own, since a record
fails to parse at once while a verdict takes seconds: counted together, the failures would be seen first and look
like a row. Each counts a record, or a post under a policy, once, in the order in which outcomes come.

A dead letter over a limit does not pass. Memory is bounded by the window.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_guard.settings import DeadLetterSettings

Stage: TypeAlias = Literal["parse", "judge"]
STAGES: Final[tuple[Stage, ...]] = ("parse", "judge")
_WHAT: Final[dict[Stage, str]] = {"parse": "records", "judge": "posts at the judge"}
_CAUSE: Final[dict[Stage, str]] = {
    "parse": "records are not in the form that post.* describes",
    "judge": "the engine cannot take what posts and policies make (engine.max_model_len)",
}


@dataclass(slots=True, frozen=True)
class LimitTrip:
    """Which limit was passed, and by what.

    Attributes:
        stage: the counted stage.
        setting: the limit's name.
        limit: its value.
        consecutive: failures in a row, including the last, which was not written.
        records: outcomes in the window.
        failures: those of them that are failures, by reason.
    """

    stage: Stage
    setting: str
    limit: float
    consecutive: int
    records: int
    failures: Mapping[str, int]

    def message(self) -> str:
        """Return what happened, the setting and the remedy, in one line and without text of a post."""
        failed = sum(self.failures.values())
        counts = ", ".join(f"{reason} {count}" for reason, count in self.failures.items())
        if self.setting.endswith("consecutive_max"):
            happened = f"{self.consecutive} {_WHAT[self.stage]} in a row cannot be judged"
        else:
            happened = f"{failed} of the last {self.records} {_WHAT[self.stage]} cannot be judged"
        return (
            f"{happened} ({counts} in the window); {self.setting} is {self.limit:g}. The last of them was neither "
            f"dead-lettered nor committed, and is read again. Probably {_CAUSE[self.stage]}: correct that, or raise "
            f"the limit where such records are meant to be dead letters (docs/guides/dead-letters.md)"
        )


class DeadLetterLimits:
    """Counts one stage's outcomes, and says when a failure is one too many.

    Args:
        settings: the limits and the window.
        stage: what is counted.

    Attributes:
        consecutive: failures since the last success.
    """

    __slots__ = ("_failures", "_records", "_runs", "_settings", "_stage", "consecutive")

    def __init__(self, settings: DeadLetterSettings, stage: Stage) -> None:
        self._settings = settings
        self._stage = stage
        # Runs of equal outcomes of one time, oldest first: [time in s, reason or None for a success, count].
        self._runs: deque[tuple[float, str | None, int]] = deque()
        self._records = 0
        self._failures: Counter[str] = Counter()
        self.consecutive = 0

    @property
    def share(self) -> float:
        """The share of failures in the window, 0 to 1."""
        return self._failures.total() / self._records if self._records else 0.0

    def passed(self, count: int, now_s: float) -> None:
        """Count successes.

        Args:
            count: how many, in a row.
            now_s: on a clock that never goes back, in s.
        """
        if count:
            self.consecutive = 0
            self._add(None, count, now_s)

    def failed(self, reason: str, now_s: float) -> LimitTrip | None:
        """Count a failure; return the limit that it passes, in which case it must not be dead-lettered.

        Args:
            reason: the error's stable word.
            now_s: on a clock that never goes back, in s.
        """
        self.consecutive += 1
        self._add(reason, 1, now_s)
        settings = self._settings
        if settings.consecutive_max and self.consecutive > settings.consecutive_max:
            return self._trip("consecutive_max", settings.consecutive_max)
        if self._records >= settings.window_records_min and self.share > settings.share_max:
            return self._trip("share_max", settings.share_max)
        return None

    def _add(self, reason: str | None, count: int, now_s: float) -> None:
        runs = self._runs
        if runs and runs[-1][:2] == (now_s, reason):
            count_before = runs.pop()[2]
            runs.append((now_s, reason, count_before + count))
        else:
            runs.append((now_s, reason, count))
        self._records += count
        if reason is not None:
            self._failures[reason] += count
        self._forget(now_s)

    def _forget(self, now_s: float) -> None:
        """Drop what is older than the window, or more than it holds."""
        runs = self._runs
        oldest_s = now_s - self._settings.window_s
        while runs:
            then_s, reason, count = runs[0]
            gone = count
            if then_s >= oldest_s:
                gone = min(count, self._records - self._settings.window_records)
                if gone <= 0:
                    return
            runs.popleft()
            if gone < count:
                runs.appendleft((then_s, reason, count - gone))
            self._records -= gone
            if reason is not None:
                self._failures[reason] -= gone

    def _trip(self, name: str, limit: float) -> LimitTrip:
        failures = {reason: count for reason, count in self._failures.most_common() if count}
        return LimitTrip(
            self._stage,
            f"dead_letters.{name}",
            limit,
            self.consecutive,
            self._records,
            failures,
        )
