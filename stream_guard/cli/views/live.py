"""The live view of ``stream-guard tail``: rates, decisions, lag, the slowest and the last verdicts.

It knows no Kafka and no HTTP, and its size does not grow with the number of verdicts.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from rich.console import Group
from rich.text import Text

from stream_guard.cli.terminal import count_of, styled, table_of
from stream_guard.cli.views.verdict_line import COLOURS, verdict_heads, verdict_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rich.table import Table

WINDOW_S: Final = 60
LAST: Final = 10
SLOWEST: Final = 5


class _Second(NamedTuple):
    """What arrived in one second: counts by decision, and a heap of the slowest (ms, number, verdict)."""

    second: int
    counts: Counter[str]
    slowest: list[tuple[int, int, Mapping[str, Any]]]


class LiveView:
    """The verdicts that arrived, in bounded space.

    Args:
        now_s: the start, in s on a monotonic clock.
    """

    def __init__(self, now_s: float) -> None:
        self._begun_s = now_s
        self._total: Counter[str] = Counter()
        self._by_second: deque[_Second] = deque(maxlen=WINDOW_S)
        self._last: deque[Mapping[str, Any]] = deque(maxlen=LAST)
        self._count = 0
        self._metrics: dict[str, float] | None = None
        self._metrics_error = ""

    def add(self, verdict: Mapping[str, Any], now_s: float) -> None:
        """Add a verdict."""
        decision = verdict["decision"]
        self._count += 1
        self._total[decision] += 1
        second = int(now_s)
        if not self._by_second or self._by_second[-1].second != second:
            self._by_second.append(_Second(second, Counter(), []))
        current = self._by_second[-1]
        current.counts[decision] += 1
        self._last.append(verdict)
        timing = verdict["timing"]
        slow = timing["published"] - timing["consumed"], self._count, verdict
        if len(current.slowest) < SLOWEST:
            heapq.heappush(current.slowest, slow)
        else:
            heapq.heappushpop(current.slowest, slow)

    def show_metrics(self, samples: Mapping[str, float]) -> None:
        """Show these values of the service's metrics, by name."""
        self._metrics, self._metrics_error = dict(samples), ""

    def show_metrics_error(self, why: str) -> None:
        """Show why the service's metrics cannot be read."""
        self._metrics, self._metrics_error = None, why

    def rates(self, now_s: float) -> dict[str, float]:
        """Return verdicts a second, by decision, over the last minute or since the beginning."""
        counts: Counter[str] = Counter()
        for one in self._window(now_s):
            counts.update(one.counts)
        passed_s = min(WINDOW_S, max(1.0, now_s - self._begun_s))
        return {decision: count / passed_s for decision, count in counts.items()}

    def _window(self, now_s: float) -> Iterator[_Second]:
        return (one for one in self._by_second if one.second > now_s - WINDOW_S)

    def _slowest(self, now_s: float) -> list[Mapping[str, Any]]:
        found = heapq.nlargest(
            SLOWEST, (slow for one in self._window(now_s) for slow in one.slowest)
        )
        return [verdict for _, _, verdict in found]

    def render(self, now_s: float) -> Group:
        """Return what to show now."""
        parts: list[Any] = [self._decisions(now_s), Text(), self._service(), Text()]
        if self._count:
            parts += [Text(f"slowest of the last {WINDOW_S} s", style="bold"), verdict_heads()]
            parts += [verdict_line(one) for one in self._slowest(now_s)]
            parts += [Text(), Text("last", style="bold"), verdict_heads()]
            parts += [verdict_line(one) for one in reversed(self._last)]
        else:
            parts.append(Text("no verdict yet", style="dim"))
        return Group(*parts)

    def _decisions(self, now_s: float) -> Table:
        rates = self.rates(now_s)
        rows: list[tuple[str | Text, ...]] = []
        for decision, colour in COLOURS.items():
            count = self._total[decision]
            share = count / self._count if self._count else 0.0
            shown = f"{rates.get(decision, 0.0):.1f}", f"{count}", f"{share:.1%}"
            rows.append((styled((decision, colour)), *shown))
        rows.append(("all", f"{sum(rates.values()):.1f}", f"{self._count}", ""))
        columns = ("decision", "per second", "total", "share")
        return table_of(columns, rows, right=columns[1:])

    def _service(self) -> Text:
        if self._metrics is None:
            return styled((self._metrics_error or "metrics: not read yet", "dim"))
        value = self._metrics.get
        age_s = value("stream_guard_oldest_unjudged_age_seconds", 0)
        dead = int(value("stream_guard_dead_letters_total", 0))
        level = value("stream_guard_pressure_level", 0)
        lag = int(value("stream_guard_lag_records", 0))
        return styled(
            (f"lag {count_of(lag, 'record')}   ", ""),
            (f"oldest {age_s:.1f} s   ", "red" if age_s > WINDOW_S else ""),
            (f"in flight {value('stream_guard_in_flight_records', 0):.0f}   ", ""),
            (f"dead letters {dead}   ", "yellow" if dead else ""),
            (f"pressure {level:.0f}", "red" if level else ""),
        )
