"""Simulates rolling updates of a consumer group as discrete events: who reads which partition, and what waits. No I/O.

The model. Posts arrive evenly over the partitions. A member reads its partitions at one rate together. Aiokafka's
rebalances are eager: when a member joins or leaves, all of them stop, drain, and read again once all have joined, so
for that pause nobody commits anything. A stopped member drains, leaves, and its successor joins after its start. The
group shares partitions out in turn, as the round-robin assignor does.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import simpy

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

__all__ = ["Group", "Rolled", "recovery_s", "simulate"]

STEP_S: Final = 0.25
"""How often work is handed out, and the backlog is noted, in s."""


@dataclass(frozen=True)
class Group:
    """A consumer group under load.

    Attributes:
        members: processes.
        partitions: of all topics together.
        arrival_per_s: posts/s that arrive.
        service_per_s: posts/s that one member judges.
        start_s: from the start of a process until it joins the group, in s.
        stop_s: from the signal until a member has left, in s: its drain.
        rebalance_s: how long nobody reads when a member joins or leaves, in s.
        settle_s: pause between a member's return and the next member's stop, in s.
    """

    members: int
    partitions: int
    arrival_per_s: float
    service_per_s: float
    start_s: float
    stop_s: float
    rebalance_s: float
    settle_s: float

    def __post_init__(self) -> None:
        """Refuse what cannot run. Raises ValueError."""
        if self.members < 1 or self.partitions < 1:
            raise ValueError("a group has at least one member and one partition")
        if self.arrival_per_s < 0 or self.service_per_s <= 0:
            raise ValueError("rates are positive")


@dataclass
class Rolled:
    """The result.

    Attributes:
        curve: (s since the first stop, posts that wait), every :data:`STEP_S`.
        rolled_s: when the last member was back, in s.
    """

    curve: list[tuple[float, float]] = field(default_factory=list)
    rolled_s: float = 0.0

    @property
    def backlog_max(self) -> float:
        """The most posts that waited."""
        return max((waiting for _, waiting in self.curve), default=0.0)

    @property
    def recovery_s(self) -> float | None:
        """See :func:`recovery_s`."""
        return recovery_s(self.curve)


def recovery_s(curve: Sequence[tuple[float, float]], share: float = 0.05) -> float | None:
    """Return when the backlog fell for good to a share of its highest, in s; None if it did not.

    Args:
        curve: (s, posts that wait), in order.
        share: of the highest backlog.
    """
    if not curve:
        return None
    floor = share * max(waiting for _, waiting in curve)
    above = [time_s for time_s, waiting in curve if waiting > floor]
    if not above:
        return curve[0][0]
    return None if above[-1] == curve[-1][0] else above[-1]


class _Cluster:
    def __init__(self, env: simpy.Environment, group: Group) -> None:
        self._env = env
        self._group = group
        self._members = list(range(group.members))
        self._waiting = np.zeros(group.partitions)
        self._numbers = np.arange(group.partitions)
        self._reading = True
        self._rebalances = itertools.count(1)
        self._latest = 0
        self.result = Rolled()
        self.done = False

    def flow(self) -> Generator[simpy.Event, Any, None]:
        """Let posts come, and members judge what they have."""
        arriving = self._group.arrival_per_s * STEP_S / self._group.partitions
        while True:
            self._waiting += arriving
            if self._reading:
                self._judge()
            self.result.curve.append((self._env.now, float(self._waiting.sum())))
            yield self._env.timeout(STEP_S)

    def _judge(self) -> None:
        """Let each member judge for a step: of its partitions, as much as each has of what waits."""
        owner = self._numbers % len(self._members)
        owned = np.bincount(owner, self._waiting, len(self._members))
        most = self._group.service_per_s * STEP_S
        share = np.minimum(1.0, most / np.maximum(owned, 1e-12))
        self._waiting -= self._waiting * share[owner]

    def rebalance(self) -> Generator[simpy.Event, Any, None]:
        """Stop everybody; the latest rebalance ends the pause."""
        number = self._latest = next(self._rebalances)
        self._reading = False
        yield self._env.timeout(self._group.rebalance_s)
        if number == self._latest:
            self._reading = bool(self._members)

    def roll(self) -> Generator[simpy.Event, Any, None]:
        """Replace each member in turn."""
        group = self._group
        for member in range(group.members):
            yield self._env.timeout(group.stop_s)
            self._members.remove(member)
            self._env.process(self.rebalance())
            yield self._env.timeout(group.start_s)
            self._members.append(member)
            yield self._env.process(self.rebalance())
            self.result.rolled_s = self._env.now
            if member < group.members - 1:
                yield self._env.timeout(group.settle_s)
        self.done = True


def simulate(group: Group, *, after_s: float = 600.0) -> Rolled:
    """Return what a rolling update of all members does.

    Args:
        group: the group and its load.
        after_s: how long to look on after the last member is back, in s.
    """
    env = simpy.Environment()
    cluster = _Cluster(env, group)
    env.process(cluster.flow())
    rolling = env.process(cluster.roll())
    env.run(until=rolling)
    env.run(until=env.now + math.ceil(after_s / STEP_S) * STEP_S)
    return cluster.result
