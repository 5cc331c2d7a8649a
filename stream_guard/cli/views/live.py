"""What ``stream-guard tail`` shows at a terminal: rates, decisions, lag, the slowest and the last verdicts.

Takes verdicts and scrapes, knows no Kafka and no HTTP. What it must never do: grow with what passes.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from typing import TYPE_CHECKING, Any, Final

from rich.console import Group
from rich.table import Table
from rich.text import Text

from stream_guard.cli.views.verdict_line import verdict_line

if TYPE_CHECKING:
    from collections.abc import Mapping

WINDOW_S: Final = 60
LAST: Final = 10
SLOWEST: Final = 5
_COLOURS: Final = {"violates": "red", "safe": "green", "undetermined": "yellow"}


class LiveView:
    """What has passed, in bounded space.

    Args:
        now_s: when it begins, on a clock that never goes back, in s.
    """

    def __init__(self, now_s: float) -> None:
        self._begun_s = now_s
        self._total: Counter[str] = Counter()
        self._by_second: deque[tuple[int, Counter[str]]] = deque(maxlen=WINDOW_S)
        self._last: deque[Mapping[str, Any]] = deque(maxlen=LAST)
        self._slowest: list[tuple[int, int, Mapping[str, Any]]] = []
        self._count = 0
        self._scrape: dict[str, float] | None = None
        self._scrape_error = ""

    def take(self, verdict: Mapping[str, Any], now_s: float) -> None:
        """Take a verdict."""
        decision = verdict["decision"]
        self._count += 1
        self._total[decision] += 1
        second = int(now_s)
        if not self._by_second or self._by_second[-1][0] != second:
            self._by_second.append((second, Counter()))
        self._by_second[-1][1][decision] += 1
        self._last.append(verdict)
        timing = verdict["timing"]
        slow = timing["published"] - timing["consumed"], self._count, verdict
        if len(self._slowest) < SLOWEST:
            heapq.heappush(self._slowest, slow)
        else:
            heapq.heappushpop(self._slowest, slow)

    def scraped(self, samples: Mapping[str, float]) -> None:
        """Take what the service's metrics say, by name."""
        self._scrape, self._scrape_error = dict(samples), ""

    def not_scraped(self, why: str) -> None:
        """Take note that the service's metrics cannot be read."""
        self._scrape, self._scrape_error = None, why

    def rates(self, now_s: float) -> dict[str, float]:
        """Return verdicts a second, by decision, over the last minute or since the beginning."""
        since_s = now_s - WINDOW_S
        counts: Counter[str] = Counter()
        for second, found in self._by_second:
            if second > since_s:
                counts.update(found)
        passed_s = min(WINDOW_S, max(1.0, now_s - self._begun_s))
        return {decision: count / passed_s for decision, count in counts.items()}

    def render(self, now_s: float) -> Group:
        """Return what to show now."""
        parts: list[Any] = [self._decisions(now_s), Text(), self._service(), Text()]
        if self._count:
            parts.append(Text("slowest", style="bold"))
            parts += [verdict_line(one) for _, _, one in sorted(self._slowest, reverse=True)]
            parts += [Text(), Text("last", style="bold")]
            parts += [verdict_line(one) for one in reversed(self._last)]
        else:
            parts.append(Text("no verdict yet", style="dim"))
        return Group(*parts)

    def _decisions(self, now_s: float) -> Table:
        table = Table(box=None, pad_edge=False)
        table.add_column("decision")
        for name in ("a second", "in all", "share"):
            table.add_column(name, justify="right")
        rates = self.rates(now_s)
        for decision, colour in _COLOURS.items():
            count = self._total[decision]
            share = count / self._count if self._count else 0.0
            shown = f"{rates.get(decision, 0.0):.1f}", f"{count}", f"{share:.1%}"
            table.add_row(Text(decision, style=colour), *shown)
        table.add_row("all", f"{sum(rates.values()):.1f}", f"{self._count}", "")
        return table

    def _service(self) -> Text:
        if self._scrape is None:
            return Text(self._scrape_error or "metrics: not read yet", style="dim")
        value = self._scrape.get
        line = Text()
        line.append(f"lag {value('stream_guard_lag_records', 0):.0f} records   ")
        age_s = value("stream_guard_oldest_unjudged_age_seconds", 0)
        line.append(f"oldest {age_s:.1f} s   ", style="red" if age_s > WINDOW_S else "")
        line.append(f"in flight {value('stream_guard_in_flight_records', 0):.0f}   ")
        dead = value("stream_guard_dead_letters_total", 0)
        line.append(f"dead letters {dead:.0f}   ", style="yellow" if dead else "")
        level = value("stream_guard_pressure_level", 0)
        line.append(f"pressure {level:.0f}", style="red" if level else "")
        return line
