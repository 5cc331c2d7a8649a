"""The lanes of records in flight: which lane a record is in, and which partitions may be polled. Pure.

A lane at one of its limits is *full*. A partition whose topic serves full lanes alone is not polled, so that the
lane's backlog stays in Kafka. Records of several lanes may share a partition, and reading it for the sake of one lane
brings records of the others: those wait in memory. A full lane may take so up to its limit again. At twice its limit
no partition is polled that has records of it in flight, whomever else it serves.

Where ``routes.yaml`` names no lanes, none of this is called for a record.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from stream_guard.core.errors import PolicyError
from stream_guard.policies.lanes import Lane, LaneLimits, severity_of
from stream_guard.policies.route_facts import RouteFacts
from stream_guard.stream.admission import BYTES_PER_TOKEN

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Sequence

    from prometheus_client import Counter

    from stream_guard.core.kafka_types import Partition
    from stream_guard.policies.lanes import Lanes
    from stream_guard.policies.policy import Policy, PolicySet
    from stream_guard.settings import BatchingSettings
    from stream_guard.stream.in_flight import InFlightRecord, PostRequest
    from stream_guard.stream.offsets import PartitionOffsets
    from stream_guard.telemetry.lane_metrics import LaneMetrics

__all__ = ["StreamLanes"]

_KNOWN_MAX: Final = 8_192
_OVER: Final = 2
"""A full lane may have this many times its limit in flight, where it shares partitions."""


class _Held:
    """What a lane has in flight.

    Attributes:
        records, bytes, tokens: in all.
        by_epoch: records, by the offsets of their partition's epoch: a key that costs no hash of a topic's name.
        ages_s: of records that were finished and are not in the metrics yet.
        goal_s: of the lane when the last of them was finished.
    """

    __slots__ = ("ages_s", "by_epoch", "bytes", "goal_s", "records", "tokens")

    def __init__(self) -> None:
        self.records = self.bytes = self.tokens = 0
        self.by_epoch: dict[PartitionOffsets, int] = {}
        self.ages_s: list[float] = []
        self.goal_s: float | None = None

    def enter(self, in_flight: InFlightRecord) -> None:
        """Count a record in."""
        self.records += 1
        self.bytes += in_flight.size_bytes
        epoch = in_flight.offsets
        self.by_epoch[epoch] = self.by_epoch.get(epoch, 0) + 1

    def leave(self, in_flight: InFlightRecord) -> None:
        """Count a record out."""
        self.records -= 1
        self.bytes -= in_flight.size_bytes
        epoch = in_flight.offsets
        left = self.by_epoch[epoch] - 1
        if left:
            self.by_epoch[epoch] = left
        else:
            del self.by_epoch[epoch]

    def has_of(self, partition: Partition) -> bool:
        """Return whether a record of a partition is in flight."""
        return any(epoch.partition == partition for epoch in self.by_epoch)

    def reaches(self, limits: LaneLimits, times: int = 1) -> bool:
        """Return whether a limit, so many times, is reached."""
        return any(
            limit is not None and held >= times * limit
            for held, limit in (
                (self.records, limits.records),
                (self.bytes, limits.bytes),
                (self.tokens, limits.tokens),
            )
        )


class StreamLanes:
    """Counts what each lane has in flight.

    Args:
        settings: the section; a lane without limits of its own gets a share of these once half is used up.
        policies: the snapshot, until :meth:`use`.
        metrics: shows the lanes.
        without: topics of another kind than posts, which no lane keeps from being polled.

    Attributes:
        named: whether there are lanes; without any, :meth:`enter` need not be called.
        counts: whether there ever were; if not, :meth:`leave` need not be called either.
    """

    def __init__(
        self,
        settings: BatchingSettings,
        policies: PolicySet,
        metrics: LaneMetrics,
        without: frozenset[str] = frozenset(),
    ) -> None:
        self._without = without
        self._settings = settings
        self._metrics = metrics
        self.counts = False
        self._crowded = False
        self._held: dict[str, _Held] = {}
        self._series: dict[str, tuple[Counter, Callable[[float], None], Counter]] = {}
        self.use(policies)

    def use(self, policies: PolicySet) -> None:
        """Take the lanes of another snapshot. What is in flight stays in the lane in which it began."""
        self._policies = policies
        self._lanes: Lanes = policies.routing.lanes
        self.named = bool(self._lanes)
        self.counts = self.counts or self.named
        self._limits = {lane.name: (lane.limits, self._shares_of(lane)) for lane in self._lanes.all}
        # By topic and the policy's digest: the lane of every such post, or None where it depends on the post.
        self._fixed: dict[tuple[str, str], Lane | None] = {}
        # Where it depends on its tenant and language alone: the lane by these as well.
        self._known: dict[tuple[str, str, str | None, str | None], Lane] = {}
        self._by_names = self._lanes.reads() <= {"topic", "tenant", "language"}
        self._possible: dict[str, tuple[Lane, ...]] = {}

    def _shares_of(self, lane: Lane) -> LaneLimits:
        """Return what a lane may have of half the total, where it has no limit of its own."""
        total, share = self._settings, self._lanes.share(lane) / 2
        own = lane.limits
        return LaneLimits(
            max(1, round(share * total.in_flight_records_max)) if own.records is None else None,
            max(1, round(share * total.in_flight_bytes_max)) if own.bytes is None else None,
            max(1, round(share * total.in_flight_tokens_max)) if own.tokens is None else None,
        )

    def needs_document(self) -> bool:
        """Return whether a lane depends on a field of the post's document."""
        return self._lanes.needs_document()

    def enter(self, in_flight: InFlightRecord, facts: RouteFacts | None) -> None:
        """Put a record's requests into their lanes, and count it.

        Args:
            in_flight: with its requests.
            facts: of the post; None where no lane needs its document.
        """
        topic = in_flight.record.topic
        entered: list[_Held] = []
        for request in in_flight.requests:
            key = (topic, request.policy.sha256)
            lane = self._fixed.get(key)
            if lane is None:
                lane = self._find(key, in_flight, request, facts)
            request.lane = lane
            held = self._held.get(lane.name)
            if held is None:
                held = self._held[lane.name] = _Held()
            held.tokens += request.post.text_bytes // BYTES_PER_TOKEN
            if held not in entered:
                entered.append(held)
                held.enter(in_flight)

    def _find(
        self,
        key: tuple[str, str],
        in_flight: InFlightRecord,
        request: PostRequest,
        facts: RouteFacts | None,
    ) -> Lane:
        """Return the lane of a post where the topic alone does not say it, or has not been asked yet."""
        post, policy, topic = request.post, request.policy, in_flight.record.topic
        name = (topic, policy.sha256, post.tenant, post.language)
        known = self._known.get(name) if self._by_names else None
        if known is not None:
            return known
        if key not in self._fixed:
            fixed = self._find_fixed(key, policy)
            if fixed is not None:
                return fixed
        if facts is None:
            facts = RouteFacts.of(topic, in_flight.record.headers, None, post)
        lane = self._lanes.of(facts, severity_of(policy.taxonomy))
        if self._by_names:
            if len(self._known) >= _KNOWN_MAX:
                self._known.clear()
            self._known[name] = lane
        return lane

    def _find_fixed(self, key: tuple[str, str], policy: Policy) -> Lane | None:
        possible = self._lanes.possible(key[0], (severity_of(policy.taxonomy),))
        lane = self._fixed[key] = possible[0] if len(possible) == 1 else None
        return lane

    def leave(self, in_flight: InFlightRecord, finished_ns: int | None = None) -> None:
        """Count a record out of its lanes.

        Args:
            in_flight: with the requests with which it entered.
            finished_ns: when its outputs were acknowledged, Unix time in ns; None where it was given up.
        """
        left: list[_Held] = []
        for request in in_flight.requests:
            lane = request.lane
            if lane is None:
                continue
            held = self._held[lane.name]
            held.tokens -= request.post.text_bytes // BYTES_PER_TOKEN
            if held in left:
                continue
            left.append(held)
            held.leave(in_flight)
            if finished_ns is not None:
                written_ns = in_flight.record.timestamp * 1_000_000
                began_ns = in_flight.consumed_ns
                if 0 < written_ns < began_ns:
                    began_ns = written_ns
                held.ages_s.append((finished_ns - began_ns) / 1e9)
                held.goal_s = lane.goal_s

    def observe(self) -> None:
        """Put the finished work into the metrics."""
        for name, held in self._held.items():
            if held.ages_s:
                self._observe(name, held)

    def _observe(self, name: str, held: _Held) -> None:
        series = self._series.get(name)
        if series is None:
            # A label lookup costs a microsecond.
            series = self._series[name] = (
                self._metrics.lane_records.labels(name),
                self._metrics.lane_seconds.series(name),
                self._metrics.lane_late.labels(name),
            )
        records, observe, late = series
        ages_s, goal_s = held.ages_s, held.goal_s
        held.ages_s = []
        records.inc(len(ages_s))
        for age_s in ages_s:
            observe(age_s)
        if goal_s is not None:
            late.inc(sum(age_s > goal_s for age_s in ages_s))

    def pollable(self, partitions: Sequence[Partition], *, crowded: bool) -> list[Partition]:
        """Return those of these partitions that serve a lane with room.

        Args:
            partitions: with room of their own.
            crowded: whether half of what may be in flight in all is in flight; until then a lane without limits of
                its own may have as much as it likes.
        """
        self._crowded = crowded
        full = {
            name: self._reaches(name, held, _OVER)
            for name, held in self._held.items()
            if name in self._limits and self._reaches(name, held)
        }
        if not full:
            return [*partitions]
        return [
            partition
            for partition in partitions
            if not self._serves_only(partition.topic, full)
            and not any(over and self._held[name].has_of(partition) for name, over in full.items())
        ]

    def _reaches(self, name: str, held: _Held, times: int = 1) -> bool:
        own, share = self._limits[name]
        return held.reaches(own, times) or (self._crowded and held.reaches(share, times))

    def _serves_only(self, topic: str, full: Container[str]) -> bool:
        lanes = self.possible(topic)
        return bool(lanes) and all(lane.name in full for lane in lanes)

    def possible(self, topic: str) -> tuple[Lane, ...]:
        """Return the lanes that posts of a topic may be in; none for a topic of another kind."""
        known = self._possible.get(topic)
        if known is None:
            known = self._possible[topic] = self._find_possible(topic)
        return known

    def _find_possible(self, topic: str) -> tuple[Lane, ...]:
        if topic in self._without:
            return ()  # it may have a route by the default
        try:
            fixed = self._policies.route_topic(topic)
        except PolicyError:
            return ()
        policies: Iterable[Policy] = (
            self._policies.policies.values()
            if fixed is None
            else (routed.policy for routed in fixed)
        )
        severities = dict.fromkeys(severity_of(policy.taxonomy) for policy in policies)
        return tuple(self._lanes.possible(topic, severities))

    def only_backfill(self, topic: str) -> bool:
        """Return whether all posts of a topic are in lanes of the class ``backfill``."""
        lanes = self.possible(topic) if self.named else ()
        return bool(lanes) and all(lane.backfill for lane in lanes)

    def show(self) -> None:
        """Show each lane's state in the metrics."""
        self.observe()
        for name in self._limits:
            held = self._held.get(name)
            self._metrics.lane_in_flight.labels(name).set(held.records if held else 0)
            self._metrics.lane_full.labels(name).set(held is not None and self._reaches(name, held))
