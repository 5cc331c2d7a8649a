"""Lanes: which posts share the engine with which weight, goal and limits. Pure.

The first lane whose conditions all hold takes a post under a policy; the last one takes every other. Where a file names
no lanes, there are none, and nothing of this page costs anything.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from stream_guard.policies.route_facts import RouteFacts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from stream_guard.core.vocabulary import Severity
    from stream_guard.policies.route_facts import Condition
    from stream_guard.policies.taxonomy import Taxonomy

__all__ = ["REST", "Lane", "LaneLimits", "Lanes", "Past", "Quota", "TenantShare", "severity_of"]

Past: TypeAlias = Literal["delay", "low_effort", "undetermined"]
REST: Final = "rest"
"""Name of the lane that is added where every lane of the file has conditions."""
_SEVERITIES: Final[tuple[Severity, ...]] = ("low", "medium", "high", "critical")


@dataclass(slots=True, frozen=True)
class Quota:
    """What a tenant may use of the engine.

    Attributes:
        tokens_per_s: estimated tokens per second, in the long run.
        burst_tokens: estimated tokens at once, after a pause.
        past: what becomes of posts above it.
    """

    tokens_per_s: float
    burst_tokens: int
    past: Past = "delay"


@dataclass(slots=True, frozen=True)
class TenantShare:
    """A tenant that a lane names.

    Attributes:
        weight: its share within the lane; others have 1.
        quota: its own; None where it has none.
    """

    weight: float = 1.0
    quota: Quota | None = None


@dataclass(slots=True, frozen=True)
class LaneLimits:
    """Most records in flight of a lane, with their bytes and estimated tokens; None for its share of the total."""

    records: int | None = None
    bytes: int | None = None
    tokens: int | None = None


@dataclass(slots=True, frozen=True)
class Lane:
    """One lane.

    Attributes:
        name: in metrics and messages.
        conditions: of the post; all must hold.
        severities: of the policy's most severe violating category, one of which it must have; empty for any.
        weight: its share of the engine within its class.
        goal_s: how long a post may take from reading to its verdict, in s; None for no goal.
        limits: on what is in flight.
        backfill: whether it waits for all lanes that are not.
        quota: of each tenant that is not named; None for none.
        tenants: the named ones.
    """

    name: str
    conditions: tuple[Condition, ...] = ()
    severities: tuple[Severity, ...] = ()
    weight: float = 1.0
    goal_s: float | None = None
    limits: LaneLimits = field(default_factory=LaneLimits)
    backfill: bool = False
    quota: Quota | None = None
    tenants: Mapping[str | None, TenantShare] = field(default_factory=dict, hash=False)

    @property
    def takes_all(self) -> bool:
        """Whether it has no conditions."""
        return not self.conditions and not self.severities

    def matches(self, facts: RouteFacts, severity: Severity | None) -> bool:
        """Return whether a post under a policy of this severity belongs here."""
        if self.severities and severity not in self.severities:
            return False
        return all(condition.matches(facts) for condition in self.conditions)

    def tenant_weight(self, tenant: str | None) -> float:
        """Return a tenant's share within the lane."""
        named = self.tenants.get(tenant)
        return 1.0 if named is None else named.weight

    def quota_of(self, tenant: str | None) -> Quota | None:
        """Return a tenant's quota, or None. Posts without a tenant are one tenant."""
        named = self.tenants.get(tenant)
        return self.quota if named is None else named.quota


class Lanes:
    """All lanes, in the order of the file; none where the file names none.

    Args:
        named: those of the file. A last lane without conditions is added where all have some.
    """

    def __init__(self, named: Sequence[Lane] = ()) -> None:
        lanes = tuple(named)
        if lanes and not lanes[-1].takes_all:
            lanes = (*lanes, Lane(REST))
        self.all: tuple[Lane, ...] = lanes

    def __bool__(self) -> bool:
        return bool(self.all)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Lanes) and self.all == other.all

    def __hash__(self) -> int:
        return hash(self.all)

    def names(self) -> list[str]:
        """Return the names of all lanes."""
        return [lane.name for lane in self.all]

    def has_quotas(self) -> bool:
        """Return whether any tenant has a quota."""
        return any(
            lane.quota is not None or any(one.quota is not None for one in lane.tenants.values())
            for lane in self.all
        )

    def share(self, lane: Lane) -> float:
        """Return a lane's part of all weights."""
        return lane.weight / sum(one.weight for one in self.all)

    def of(self, facts: RouteFacts, severity: Severity | None) -> Lane:
        """Return the lane of a post under a policy of this severity. There must be lanes."""
        return next(lane for lane in self.all if lane.matches(facts, severity))

    def possible(self, topic: str, severities: Iterable[Severity | None]) -> list[Lane]:
        """Return the lanes that posts of a topic may be in, under policies of these severities; with one, all are."""
        facts = RouteFacts(topic)
        found: dict[str, Lane] = {}
        for severity in severities:
            for lane in self.all:
                topics = [one for one in lane.conditions if one.kind == "topic"]
                if not Lane("", tuple(topics), lane.severities).matches(facts, severity):
                    continue
                found.setdefault(lane.name, lane)
                if len(topics) == len(lane.conditions):
                    break  # it takes all that come to it
        return list(found.values())

    def reads(self) -> set[str]:
        """Return the kinds of all conditions."""
        return {one.kind for lane in self.all for one in lane.conditions}

    def needs_document(self) -> bool:
        """Return whether a condition reads a field of the post's document."""
        return "field" in self.reads()


def severity_of(taxonomy: Taxonomy) -> Severity | None:
    """Return the severity of a policy's most severe violating category; None where it declares none."""
    declared = {one.severity for one in taxonomy.categories if one.violates}
    return next((word for word in reversed(_SEVERITIES) if word in declared), None)
