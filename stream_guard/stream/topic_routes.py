"""Which policies judge a topic's posts, by the policies that are live now. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_guard.core.errors import PolicyError
from stream_guard.policies.routing import RouteFacts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.policies.policy import Policy, PolicySet
    from stream_guard.records.post import Post, PostParser
    from stream_guard.stream.escalated import SideInput
    from stream_guard.stream.in_flight import InFlightRecord, Outgoing
    from stream_guard.stream.outgoing import OutgoingBuilder


class TopicRoutes:
    """The routes of one snapshot of policies, by topic.

    Args:
        policies: the snapshot.
        without: topics of another kind, which need no route.
        inputs: those of escalations, whose records name their post and policy themselves.

    Attributes:
        without: all topics of another kind.
    """

    def __init__(
        self,
        policies: PolicySet,
        without: frozenset[str] = frozenset(),
        inputs: Sequence[SideInput] = (),
    ) -> None:
        self._policies = policies
        self._inputs = {one.topic: one for one in inputs}
        self.without = without.union(self._inputs)
        # By topic: the policies of all its posts, all live; None where they depend on the post.
        self._routes: dict[str, tuple[Policy, ...] | None] = {}
        self._routed: dict[str, bool] = {}

    def of(self, policies: PolicySet) -> TopicRoutes:
        """Return the routes of another snapshot."""
        return TopicRoutes(policies, self.without, [*self._inputs.values()])

    def has_route(self, topic: str) -> bool:
        """Return whether any policy judges this topic's posts; without one, none of its records may be accepted."""
        known = self._routed.get(topic)
        if known is None:
            try:
                if topic not in self.without:
                    self._policies.route_topic(topic)
            except PolicyError:
                known = False
            else:
                known = True
            self._routed[topic] = known
        return known

    def has_lag(self, topic: str) -> bool:
        """Return whether unread records of a topic are a lag; if not, they wait for a deadline."""
        side = self._inputs.get(topic)
        return side is None or not side.waits

    def fixed(self, topic: str) -> tuple[Policy, ...] | None:
        """Return the policies of all posts of a topic, all live; None where they depend on the post."""
        if topic in self._inputs:
            return None
        if topic in self._routes:
            return self._routes[topic]
        routed = self._policies.route_topic(topic)
        fixed = None
        # Marks belong to a post: a topic's own routes have none.
        if (
            routed is not None
            and all(route.mode == "live" for route in routed)
            and not self._policies.routing.lanes.needs_document()
        ):
            fixed = tuple(route.policy for route in routed)
        self._routes[topic] = fixed
        return fixed

    def route(
        self, in_flight: InFlightRecord, parser: PostParser
    ) -> tuple[Post, tuple[Policy, ...], RouteFacts | None]:
        """Parse a record whose policies or lane depend on the post. Raises RecordError."""
        record = in_flight.record
        side = self._inputs.get(record.topic) if self._inputs else None
        if side is not None:
            return *side.read(in_flight, self._policies), None
        post, document = parser.parse_document(record.value, record.headers)
        facts = RouteFacts.of(record.topic, record.headers, document, post)
        routed = self._policies.route_post(facts)
        if any(route.mode != "live" for route in routed):
            in_flight.modes = {route.policy.id: route.mode for route in routed}
        return post, tuple(route.policy for route in routed), facts

    def settled(
        self, in_flight: InFlightRecord, why: str, build: OutgoingBuilder, now_ns: int
    ) -> list[Outgoing]:
        """Return what an escalation owes that is not judged here."""
        return self._inputs[in_flight.record.topic].owed(in_flight, why, build, now_ns)
