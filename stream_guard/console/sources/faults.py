"""What is wrong with the service, by the replicas' metrics: the alerts' rules, as far as a console can know them.

Each fault has a name in the catalogue, the alert that it belongs to, and the guide that says what to do. Rates are of
the last seconds and not of a quarter of an hour, so each fault counts only after it has lasted for some time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from stream_guard.core.visible_text import visible_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from stream_guard.console.sources.replicas import Replicas
    from stream_guard.core.clock import Clock

    Finder = Callable[[Replicas], Iterator[Mapping[str, Any]]]

__all__ = ["RULES", "SHOWN_MAX", "Fault", "Faults", "Rule"]

SHOWN_MAX: Final = 20
"""Faults that are kept; more would hide each other."""
_KNOWN_MAX: Final = 1_000
_VALUE_CHARACTERS_MAX: Final = 120
_STAYS_S: Final = 600.0
_SECONDS: Final = "seconds"


class Rule(NamedTuple):
    """A kind of fault.

    Attributes:
        name: the texts ``now.fault_NAME`` and ``now.remedy_NAME``.
        alert: of the chart, that fires for it.
        guide: the page of the documentation, with its place.
        after_s: how long it lasts before it is shown, in s.
        find: yields the values of the text for each that there is now.
        stays_s: how long it is shown after it was last found, in s: of what happens and is over at once.
    """

    name: str
    alert: str
    guide: str
    after_s: float
    find: Finder
    stays_s: float = 0


@dataclass(slots=True, frozen=True)
class Fault:
    """A fault that lasts.

    Attributes:
        rule: its kind.
        values: of its text; controls are written out.
        since_ms: Unix time in ms.
    """

    rule: Rule
    since_ms: int
    values: Mapping[str, str] = field(default_factory=dict)


class _Known(NamedTuple):
    """A fault that was found, whether it has lasted long enough or not."""

    rule: Rule
    began_ms: int
    seen_ms: int
    values: Mapping[str, str]


class Faults:
    """Looks for faults each time that the replicas have been read.

    Args:
        replicas: their metrics.
        clock: the time.
    """

    def __init__(self, replicas: Replicas, clock: Clock) -> None:
        self._replicas = replicas
        self._clock = clock
        self._known: dict[tuple[str, tuple[str, ...]], _Known] = {}
        self.lasting: list[Fault] = []
        replicas.listen(self.look)

    def look(self) -> None:
        """Find what is wrong now, and since when."""
        now_ms = self._clock.wall_ns() // 1_000_000
        for rule in RULES:
            for found in rule.find(self._replicas):
                values = {name: _shown(value) for name, value in found.items()}
                # What is measured changes all the time; what it is about does not.
                about = tuple(value for name, value in values.items() if name not in _MEASURED)
                key = rule.name, about
                began_ms = self._known[key].began_ms if key in self._known else now_ms
                self._known[key] = _Known(rule, began_ms, now_ms, values)
        self._known = {
            key: known
            for key, known in list(self._known.items())[-_KNOWN_MAX:]
            if now_ms - known.seen_ms <= known.rule.stays_s * 1_000
        }
        order = [rule.name for rule in RULES]
        lasting = [
            Fault(known.rule, known.began_ms, known.values)
            for known in self._known.values()
            if known.seen_ms - known.began_ms >= known.rule.after_s * 1_000
        ]
        self.lasting = sorted(lasting, key=lambda each: order.index(each.rule.name))[:SHOWN_MAX]


_MEASURED: Final = frozenset({"count", "share", _SECONDS})


def _shown(value: object) -> str:
    text = f"{value:,.0f}" if isinstance(value, int | float) else str(value)
    return visible_line(text[:_VALUE_CHARACTERS_MAX])


def _not_ready(replicas: Replicas) -> Iterator[Mapping[str, Any]]:
    for replica in replicas.all.values():
        names = {name for name, _ in replica.figures}
        if names and "stream_guard_build_info" not in names:
            yield {"where": replica.address}


def _away(replicas: Replicas) -> Iterator[Mapping[str, Any]]:
    for replica in replicas.all.values():
        if replica.fault is not None:
            yield {"where": replica.address, "why": replica.fault}


def _no_progress(replicas: Replicas) -> Iterator[Mapping[str, Any]]:
    for replica in replicas.all.values():
        waiting = sum(
            value
            for (name, _), value in replica.figures.items()
            if name == "stream_guard_lag_records"
        )
        moved = sum(replica.rates("stream_guard_verdicts_total").values()) + sum(
            replica.rates("stream_guard_dead_letters_total").values()
        )
        if waiting and not moved:
            yield {"where": replica.address, "count": waiting}


def _above(metric: str, limit: float, measured: str, *labels: str) -> Finder:
    """Return what finds the values of a gauge above a limit, the largest of all replicas by these labels."""

    def find(replicas: Replicas) -> Iterator[Mapping[str, Any]]:
        for key, value in replicas.by(metric, *labels, together=max).items():
            if value > limit:
                yield dict(zip(labels, key, strict=True)) | {measured: value}

    return find


def _moves(metric: str, *labels: str, only: Mapping[str, str] | None = None) -> Finder:
    """Return what finds counters that grow, by these labels, of the series that have the labels ``only``."""
    wanted = only or {}

    def find(replicas: Replicas) -> Iterator[Mapping[str, Any]]:
        for key, rate in replicas.rates_by(metric, *labels, *wanted).items():
            if rate > 0 and list(key[len(labels) :]) == list(wanted.values()):
                yield dict(zip(labels, key[: len(labels)], strict=True))

    return find


def _share(
    metric: str, whole: str, limit: float, wanted: Callable[[str], bool], label: str
) -> Finder:
    """Return what finds that a share of a counter's growth is above a limit: of the values that are wanted."""

    def find(replicas: Replicas) -> Iterator[Mapping[str, Any]]:
        part = sum(
            rate for (value,), rate in replicas.rates_by(metric, label).items() if wanted(value)
        )
        total = replicas.rates_by(whole).get((), 0.0)
        if total > 0 and part / total > limit:
            yield {"share": f"{min(1.0, part / total):.0%}"}

    return find


RULES: Final[tuple[Rule, ...]] = (
    Rule("away", "StreamGuardDown", "guides/troubleshooting", 0, _away),
    Rule("not_ready", "StreamGuardDown", "guides/troubleshooting", 0, _not_ready),
    Rule("no_progress", "StreamGuardNoProgress",
         "guides/engine-restarts#when-nothing-moves", 30, _no_progress),
    Rule("rebuilt", "StreamGuardEngineRebuilds", "guides/engine-restarts#what-to-watch", 0,
         _moves("stream_guard_engine_rebuilds_total", "cause"), _STAYS_S),
    Rule("behind", "StreamGuardFallsBehind", "guides/operations#how-many-replicas", 30,
         _above("stream_guard_oldest_unjudged_age_seconds", 900, _SECONDS, "topic")),
    Rule("head_of_line", "StreamGuardHeadOfLine", "guides/troubleshooting", 0,
         _above("stream_guard_head_of_line_age_seconds", 300, _SECONDS)),
    Rule("pressure", "StreamGuardPressure", "explanation/cascade#under-load", 30,
         _above("stream_guard_pressure_level", 1, "count")),
    Rule("degraded", "StreamGuardDegraded", "explanation/cascade#under-load", 60,
         _share("stream_guard_degraded_verdicts_total", "stream_guard_verdicts_total", 0.1,
                lambda what: what != "action_limited" and not what.startswith("quota_"), "what")),
    Rule("breaker", "StreamGuardBreakerOpen", "guides/action-limits#when-it-opens", 0,
         _above("stream_guard_breaker_open", 0, "count", "policy", "action", "window")),
    Rule("uncounted", "StreamGuardActionsUncounted", "guides/action-limits#what-happens-at-a-limit", 0,
         _moves("stream_guard_limited_actions_total", only={"cause": "unanswered"}), _STAYS_S),
    Rule("dead_letters", "StreamGuardManyDeadLetters", "guides/dead-letters#list-show-replay", 60,
         _share("stream_guard_dead_letters_total", "stream_guard_records_total", 0.05,
                lambda _reason: True, "reason")),
    Rule("dead_letter_limit", "StreamGuardNearDeadLetterLimit", "guides/dead-letters#limits", 0,
         _above("stream_guard_dead_letter_consecutive", 400, "count", "stage")),
    Rule("undetermined", "StreamGuardManyUndetermined", "guides/troubleshooting", 60,
         _share("stream_guard_verdicts_total", "stream_guard_verdicts_total", 0.1,
                lambda decision: decision == "undetermined", "decision")),
    Rule("expired", "StreamGuardRecordsExpired", "guides/troubleshooting", 0,
         _moves("stream_guard_records_expired_total", "topic", "cause"), _STAYS_S),
    Rule("registry", "StreamGuardRegistryAway", "guides/kafka-formats#when-the-registry-fails", 5,
         _above("stream_guard_registry_waiting_partitions", 0, "count")),
    Rule("commits", "StreamGuardCommitsFail", "guides/troubleshooting", 0,
         _moves("stream_guard_commits_total", only={"outcome": "failed"}), _STAYS_S),
    Rule("transactions", "StreamGuardTransactionsFail", "explanation/guarantees#how-exactly-once-works", 60,
         _share("stream_guard_transactions_total", "stream_guard_transactions_total", 0.1,
                lambda outcome: outcome != "committed", "outcome")),
    Rule("decisions", "StreamGuardDecisionsNotRead", "guides/decisions#turn-it-on", 60,
         _above("stream_guard_decisions_behind", 0, "count")),
    Rule("escalations", "StreamGuardEscalationsWait",
         "guides/escalation#if-the-second-deployment-is-away", 0,
         _above("stream_guard_escalation_wait_seconds", 600, _SECONDS)),
    Rule("lane", "StreamGuardLaneLate", "guides/lanes#watch-it", 30,
         _above("stream_guard_lane_full", 0, "count", "lane")),
    Rule("refused", "StreamGuardPoliciesRefused", "guides/troubleshooting", 0,
         _moves("stream_guard_policy_reloads_total", only={"outcome": "refused"}), _STAYS_S),
)  # fmt: skip
