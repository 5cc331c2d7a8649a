"""The figures of the page Now: made once for each reading of the replicas, however many people look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from stream_guard.console.sources.replicas import Replica, Replicas

__all__ = [
    "ROWS_MAX",
    "Board",
    "Figures",
    "LaneRow",
    "Moving",
    "PartitionRow",
    "PolicyRow",
    "ReplicaRow",
    "TierShare",
]

ROWS_MAX: Final = 20
"""Of each table: the largest. The page says how many more there are."""
_DECISIONS: Final = ("violates", "safe", "undetermined")
_TIERS: Final = ("duplicates", "rules", "classifier", "safeguard")
_SHADOW: Final = "shadow"


class Moving(NamedTuple):
    """A counter: what it counts, its growth a second, and its total since the replicas' start."""

    name: str
    per_s: float
    total: float


class PolicyRow(NamedTuple):
    """Verdicts of a policy by a tier and a kind of route: each decision's growth a second, and the total."""

    policy: str
    tier: str
    mode: str
    per_s: Mapping[str, float]
    total: float


class PartitionRow(NamedTuple):
    """A partition that is read: records that are not finished, and the age of the oldest in s."""

    topic: str
    partition: str
    lag: float
    age_s: float


class ReplicaRow(NamedTuple):
    """A replica.

    Attributes:
        address: of its metrics.
        state: ``ready``, ``starting`` or ``away``.
        since_ms: since when it answers, or does not; Unix time in ms.
        model, engine, version: what it runs; empty while it is not ready.
        in_flight: records.
        rebuilds: engines that it rebuilt.
        pressure: level, from 0 to 3.
    """

    address: str
    state: str
    since_ms: int
    model: str = ""
    engine: str = ""
    version: str = ""
    in_flight: float = 0.0
    rebuilds: float = 0.0
    pressure: float = 0.0


class LaneRow(NamedTuple):
    """A lane: records in flight, whether it is full, records and late records a second, and tokens a second."""

    lane: str
    in_flight: float
    full: bool
    records_per_s: float
    late_per_s: float
    tokens_per_s: float


class TierShare(NamedTuple):
    """The part of all verdicts that a tier settled: the share, and verdicts a second."""

    tier: str
    share: float
    per_s: float


@dataclass(slots=True, frozen=True)
class Figures:
    """What the page shows. Of tables with ``_more`` the largest :data:`ROWS_MAX` rows are kept.

    Attributes:
        posts_per_s: records read a second.
        verdicts_per_s: verdicts a second.
        decisions: verdicts by decision.
        policies, policies_more: verdicts by policy and tier, and how many rows were left out.
        tiers: the cascade, in the order of the tiers; shadows do not count.
        tiers_now: whether the shares are those of the last seconds, or else since the replicas' start.
        partitions, partitions_more: lag and age, the oldest first.
        replicas: their state.
        breakers: open limits on actions: policy, action, window.
        dead_letters: by reason.
        lanes: none without lanes.
        tenants: lane, tenant and tokens a second of the tenants with the most.
    """

    posts_per_s: float
    verdicts_per_s: float
    decisions: Sequence[Moving]
    policies: Sequence[PolicyRow]
    policies_more: int
    tiers: Sequence[TierShare]
    tiers_now: bool
    partitions: Sequence[PartitionRow]
    partitions_more: int
    replicas: Sequence[ReplicaRow]
    breakers: Sequence[tuple[str, ...]]
    dead_letters: Sequence[Moving]
    lanes: Sequence[LaneRow]
    tenants: Sequence[tuple[str, str, float]]


class Board:
    """The figures, kept until the replicas have been read again.

    Args:
        replicas: their metrics.
    """

    def __init__(self, replicas: Replicas) -> None:
        self._replicas = replicas
        self._made: tuple[int, Figures] | None = None

    def figures(self) -> Figures:
        """Return the figures of the last reading."""
        turn = self._replicas.turn
        if self._made is None or self._made[0] != turn:
            self._made = turn, _figures(self._replicas)
        return self._made[1]


def _figures(replicas: Replicas) -> Figures:
    rates = replicas.rates_by("stream_guard_verdicts_total", "policy", "tier", "mode", "decision")
    totals = replicas.by("stream_guard_verdicts_total", "policy", "tier", "mode", "decision")
    policies = _policies(rates, totals)
    tiers, tiers_now = _tiers(rates, totals)
    partitions = _partitions(replicas)
    decided, grown = _by_last(totals), _by_last(rates)
    return Figures(
        posts_per_s=replicas.rates_by("stream_guard_records_total").get((), 0.0),
        verdicts_per_s=sum(rates.values()),
        decisions=[
            Moving(each, grown.get(each, 0.0), decided.get(each, 0.0)) for each in _DECISIONS
        ],
        policies=policies[:ROWS_MAX],
        policies_more=len(policies[ROWS_MAX:]),
        tiers=tiers,
        tiers_now=tiers_now,
        partitions=partitions[:ROWS_MAX],
        partitions_more=len(partitions[ROWS_MAX:]),
        replicas=[_replica(each) for each in replicas.all.values()],
        breakers=sorted(
            key
            for key, value in replicas.by(
                "stream_guard_breaker_open", "policy", "action", "window", together=max
            ).items()
            if value
        )[:ROWS_MAX],
        dead_letters=_moving(replicas, "stream_guard_dead_letters_total", "reason"),
        lanes=_lanes(replicas),
        tenants=_tenants(replicas),
    )


def _by_last(values: Mapping[tuple[str, ...], float]) -> dict[str, float]:
    """Add values up by the last of their labels."""
    found: dict[str, float] = {}
    for key, value in values.items():
        found[key[-1]] = found.get(key[-1], 0.0) + value
    return found


def _policies(
    rates: Mapping[tuple[str, ...], float], totals: Mapping[tuple[str, ...], float]
) -> list[PolicyRow]:
    """Return the rows by policy and tier, the busiest first."""
    per_s: dict[tuple[str, str, str], dict[str, float]] = {}
    total: dict[tuple[str, str, str], float] = {}
    for key, value in totals.items():
        policy, tier, mode, decision = key
        row = policy, tier, mode
        if value:
            total[row] = total.get(row, 0.0) + value
            per_s.setdefault(row, dict.fromkeys(_DECISIONS, 0.0))[decision] = rates.get(key, 0.0)
    rows = [
        PolicyRow(policy, tier, mode, per_s[policy, tier, mode], value)
        for (policy, tier, mode), value in total.items()
    ]
    return sorted(rows, key=lambda row: (-sum(row.per_s.values()), -row.total, row[:3]))


def _tiers(
    rates: Mapping[tuple[str, ...], float], totals: Mapping[tuple[str, ...], float]
) -> tuple[list[TierShare], bool]:
    """Return what each tier settled, and whether that is of the last seconds."""
    now, ever = _by_tier(rates), _by_tier(totals)
    shown = now if sum(now.values()) > 0 else ever
    whole = sum(shown.values())
    if not whole:
        return [], False
    # A tier that settles nothing now stays in the picture, so that the picture does not jump.
    names = [each for each in _TIERS if ever.get(each)]
    names += sorted(name for name in ever if name not in _TIERS and ever[name])
    found = [TierShare(name, shown.get(name, 0.0) / whole, now.get(name, 0.0)) for name in names]
    return found, shown is now


def _by_tier(values: Mapping[tuple[str, ...], float]) -> dict[str, float]:
    found: dict[str, float] = {}
    for (_policy, tier, mode, _decision), value in values.items():
        if mode != _SHADOW:
            found[tier] = found.get(tier, 0.0) + value
    return found


def _partitions(replicas: Replicas) -> list[PartitionRow]:
    places = "topic", "partition"
    lags = replicas.by("stream_guard_lag_records", *places, together=max)
    ages = replicas.by("stream_guard_oldest_unjudged_age_seconds", *places, together=max)
    rows = [
        PartitionRow(topic, partition, lags.get((topic, partition), 0.0), age_s)
        for (topic, partition), age_s in (dict.fromkeys(lags, 0.0) | ages).items()
    ]
    return sorted(
        rows,
        key=lambda row: (-row.age_s, -row.lag, row.topic, len(row.partition), row.partition),
    )


def _replica(replica: Replica) -> ReplicaRow:
    if replica.fault is not None:
        return ReplicaRow(replica.address, "away", replica.since_ms)
    totals: dict[str, float] = {}
    about: dict[str, str] = {}
    for (name, labels), value in replica.figures.items():
        totals[name] = totals.get(name, 0.0) + value
        if name == "stream_guard_build_info":
            about = dict(labels)
    return ReplicaRow(
        replica.address,
        "ready" if about else "starting",
        replica.since_ms,
        about.get("model", ""),
        about.get("engine", ""),
        about.get("version", ""),
        totals.get("stream_guard_in_flight_records", 0.0),
        totals.get("stream_guard_engine_rebuilds_total", 0.0),
        totals.get("stream_guard_pressure_level", 0.0),
    )


def _moving(replicas: Replicas, metric: str, label: str) -> list[Moving]:
    """Return a counter by one label, the busiest first, without what has never been counted."""
    rates = replicas.rates_by(metric, label)
    rows = [
        Moving(key[0], rates.get(key, 0.0), value)
        for key, value in replicas.by(metric, label).items()
        if value
    ]
    return sorted(rows, key=lambda row: (-row.per_s, -row.total, row.name))[:ROWS_MAX]


def _lanes(replicas: Replicas) -> list[LaneRow]:
    in_flight = replicas.by("stream_guard_lane_in_flight_records", "lane")
    full = replicas.by("stream_guard_lane_full", "lane", together=max)
    rates = [
        replicas.rates_by(f"stream_guard_lane_{what}_total", "lane")
        for what in ("records", "late_records", "tokens")
    ]
    lanes = _keys((in_flight, full, *rates))[:ROWS_MAX]
    return [
        LaneRow(
            lane[0],
            in_flight.get(lane, 0.0),
            full.get(lane, 0.0) > 0,
            *(rate.get(lane, 0.0) for rate in rates),
        )
        for lane in lanes
    ]


def _keys(tables: Iterable[Mapping[tuple[str, ...], float]]) -> list[tuple[str, ...]]:
    return sorted({key for table in tables for key in table})


def _tenants(replicas: Replicas) -> list[tuple[str, str, float]]:
    found = replicas.by("stream_guard_tenant_tokens_per_second", "lane", "tenant")
    rows = [(lane, tenant, value) for (lane, tenant), value in found.items()]
    return sorted(rows, key=lambda row: (-row[2], row[:2]))[:ROWS_MAX]
