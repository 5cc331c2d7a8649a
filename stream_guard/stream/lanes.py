"""The lanes of records in flight: which lane a record is in, and which partitions may be polled. Pure.

A lane at one of its limits is *full*. A partition whose topic serves full lanes alone is not polled, so that the
lane's backlog stays in Kafka. Records of several lanes may share a partition, and reading it for the sake of one lane
brings records of the others: those wait in memory. A full lane may take so up to its limit again. At twice its limit
no partition is polled that has records of it in flight, whomever else it serves.

Where ``routes.yaml`` names no lanes, none of this is called for a record.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from stream_guard.core.errors import PolicyError
from stream_guard.policies.lanes import Lane, LaneLimits, severity_of
from stream_guard.policies.route_facts import RouteFacts
from stream_guard.stream.admission import BYTES_PER_TOKEN
from stream_guard.stream.lane_in_flight import LaneInFlight, LaneOfEpoch, SeveralLanes

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

_ByNames: TypeAlias = "dict[tuple[str | None, str | None], LaneInFlight]"
_KNOWN_MAX: Final = 8_192
_KNOWN_CHARACTERS: Final = 256
"""Of a tenant and language that are remembered; longer ones are looked at each time."""
_OVER: Final = 2
"""A full lane may have this many times its limit in flight, where it shares partitions."""


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
        self._held: dict[str, LaneInFlight] = {}
        self._series: dict[str, tuple[Counter, Callable[[float, int], None], Counter]] = {}
        self.use(policies)

    def use(self, policies: PolicySet) -> None:
        """Take the lanes of another snapshot. What is in flight stays in the lane in which it began."""
        self._policies = policies
        self._lanes: Lanes = policies.routing.lanes
        self.named = bool(self._lanes)
        self.counts = self.counts or self.named
        for lane in self._lanes.all:
            if lane.name in self._held:
                self._held[lane.name].lane = lane
        self._limits = {lane.name: (lane.limits, self._shares_of(lane)) for lane in self._lanes.all}
        # By topic and the policy's digest: the lane of every such post; or, where it depends on the post's tenant and
        # language alone, the lanes by these.
        self._fixed: dict[tuple[str, str], LaneInFlight | None] = {}
        self._known: dict[tuple[str, str], _ByNames] = {}
        self._known_count = 0
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

    def enter(
        self,
        offsets: PartitionOffsets,
        entering: Iterable[tuple[InFlightRecord, RouteFacts | None]],
    ) -> None:
        """Put the requests of records into their lanes, and count the records.

        Args:
            offsets: of their partition, in the epoch in which they were read.
            entering: each with its requests, and with the facts of its post, or None where no lane needs its document.
                One that was given up meanwhile is left out.
        """
        topic = offsets.partition.topic
        policy: Policy | None = None
        fixed: LaneInFlight | None = None
        known: _ByNames = {}
        epochs: dict[LaneInFlight, LaneOfEpoch] = {}
        for in_flight, facts in entering:
            if in_flight.abandoned:
                continue
            one: LaneOfEpoch | None = None
            entered: list[tuple[LaneOfEpoch, int]] = []
            several = len(in_flight.requests) > 1
            for request in in_flight.requests:
                post = request.post
                if request.policy is not policy:
                    policy = request.policy
                    fixed, known = self._lanes_of(topic, policy)
                held = known.get((post.tenant, post.language)) if fixed is None else fixed
                if held is None:
                    held = self._find(topic, in_flight, request, facts, known)
                request.lane = held.lane
                one = epochs.get(held)
                if one is None:
                    one = epochs[held] = held.of_epoch(offsets)
                if several:
                    entered.append((one, post.text_bytes // BYTES_PER_TOKEN))
            if several:
                in_flight.lanes = lanes = SeveralLanes(entered)
                lanes.enter(in_flight.size_bytes)
            elif one is not None:
                in_flight.lanes = one
                one.enter(in_flight.size_bytes, in_flight.tokens)

    def _lanes_of(self, topic: str, policy: Policy) -> tuple[LaneInFlight | None, _ByNames]:
        """Return the lane of all posts of a topic under a policy, or else the lanes of those seen so far."""
        key = (topic, policy.sha256)
        if key not in self._fixed:
            possible = self._lanes.possible(topic, (severity_of(policy.taxonomy),))
            self._fixed[key] = self._held_by(possible[0]) if len(possible) == 1 else None
        return self._fixed[key], self._known.setdefault(key, {})

    def _find(
        self,
        topic: str,
        in_flight: InFlightRecord,
        request: PostRequest,
        facts: RouteFacts | None,
        known: _ByNames,
    ) -> LaneInFlight:
        """Return the lane of a post where the topic alone does not say it, and remember it if its names do."""
        post = request.post
        if facts is None:
            facts = RouteFacts.of(topic, in_flight.record.headers, None, post)
        held = self._held_by(self._lanes.of(facts, severity_of(request.policy.taxonomy)))
        if (
            self._by_names
            and len(post.tenant or "") + len(post.language or "") <= _KNOWN_CHARACTERS
        ):
            if self._known_count >= _KNOWN_MAX:
                self._known_count = 0
                for one in self._known.values():
                    one.clear()
            self._known_count += 1
            known[post.tenant, post.language] = held
        return held

    def _held_by(self, lane: Lane) -> LaneInFlight:
        held = self._held.get(lane.name)
        if held is None:
            held = self._held[lane.name] = LaneInFlight(lane)
        return held

    def observe(self, now_ns: int) -> None:
        """Put the records finished by now, Unix time in ns, into the metrics."""
        for name, held in self._held.items():
            if held.finished:
                self._observe(name, held, now_ns)

    def _observe(self, name: str, held: LaneInFlight, now_ns: int) -> None:
        series = self._series.get(name)
        if series is None:
            # A label lookup costs a microsecond.
            series = self._series[name] = (
                self._metrics.lane_records.labels(name),
                self._metrics.lane_seconds.series(name),
                self._metrics.lane_late.labels(name),
            )
        records, observe, late = series
        finished, held.finished = held.finished, {}
        records.inc(sum(finished.values()))
        goal_s, too_late = held.lane.goal_s, 0
        for written_ms, count in finished.items():
            age_s = (now_ns - written_ms * 1_000_000) / 1e9
            observe(age_s, count)
            if goal_s is not None and age_s > goal_s:
                too_late += count
        if too_late:
            late.inc(too_late)

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

    def _reaches(self, name: str, held: LaneInFlight, times: int = 1) -> bool:
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

    def show(self, now_ns: int) -> None:
        """Show each lane's state in the metrics, at this Unix time in ns."""
        self.observe(now_ns)
        for name in self._limits:
            held = self._held.get(name)
            self._metrics.lane_in_flight.labels(name).set(held.records if held else 0)
            self._metrics.lane_full.labels(name).set(held is not None and self._reaches(name, held))
