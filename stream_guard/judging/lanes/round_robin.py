"""Deficit round robin: several queues share one server by weight. Pure.

After Shreedhar and Varghese, "Efficient fair queuing using deficit round robin" (SIGCOMM 1995), with two changes. A
queue pays *after* it was served: it is served while it has a credit above zero, and its last item may leave a debt. So
nobody has to know the cost of the head before it is taken, and a queue may choose its head late. And a queue that had
nothing waiting gets its first turn before the others, as in FQ-CoDel (RFC 8290): who sends little hardly waits.

Two queues ``i`` and ``j`` that both have work all the time get shares ``S`` that differ by a bound that does not grow:
``|S_i / w_i - S_j / w_j| <= 2 * quantum + M / w_i + M / w_j``, where ``w`` are weights and ``M`` is the largest cost.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["Flow", "RoundRobin"]

if TYPE_CHECKING:
    KeyT = TypeVar("KeyT", bound=Hashable)
else:
    KeyT = TypeVar("KeyT")
QueueT = TypeVar("QueueT")


class Flow(Generic[KeyT, QueueT]):
    """One queue in the ring.

    Attributes:
        key: its name in the ring.
        queue: what it holds.
        weight: its share, relative to the others.
        waiting: how many items it holds. The caller counts them: asking each queue for its length would cost more than
            a turn.
        credit: what it may still take in its turn; below zero it is a debt. The caller takes off the cost of each item
            that it was served.
        begun: whether it has had the quantum of this turn.
    """

    __slots__ = ("begun", "credit", "key", "queue", "waiting", "weight")

    def __init__(self, key: KeyT, queue: QueueT, weight: float) -> None:
        self.key = key
        self.queue = queue
        self.weight = weight
        self.waiting = 0
        self.credit = 0.0
        self.begun = False


class RoundRobin(Generic[KeyT, QueueT]):
    """The ring.

    A queue stays in the ring while it has work or a debt, and until its next turn after that. So nobody gets rid of a
    debt, or is new again, by coming back with an empty queue. When nobody has work, the caller clears the ring: a debt
    to nobody is forgiven.

    Args:
        quantum: what a queue of weight 1 gets in each round, in units of cost.

    Attributes:
        flows: all queues of the ring by their keys; :meth:`join` adds one.
    """

    __slots__ = ("_new", "_quantum", "_ring", "flows")

    def __init__(self, quantum: float) -> None:
        self._quantum = quantum
        self.flows: dict[KeyT, Flow[KeyT, QueueT]] = {}
        self._new: deque[Flow[KeyT, QueueT]] = deque()
        self._ring: deque[Flow[KeyT, QueueT]] = deque()

    def __len__(self) -> int:
        """Return how many queues are in the ring, also those without work."""
        return len(self.flows)

    def join(self, key: KeyT, queue: QueueT, weight: float) -> Flow[KeyT, QueueT]:
        """Let a new queue in. Its first turn comes before those of the queues that are there."""
        flow = Flow(key, queue, weight)
        self.rejoin(key, flow, weight)
        return flow

    def rejoin(self, key: KeyT, flow: Flow[KeyT, QueueT], weight: float) -> None:
        """Let a queue that left some ring in, as :meth:`join` does, under this key. It must be empty."""
        assert key not in self.flows, "it is in the ring already"
        flow.key, flow.weight, flow.credit, flow.begun = key, weight, 0.0, False
        self.flows[key] = flow
        self._new.append(flow)

    def turn(self) -> Flow[KeyT, QueueT]:
        """Return the queue whose turn it is: it has work, and credit. At least one queue must have work."""
        new, ring = self._new, self._ring
        visits = 0
        while True:
            flow = new[0] if new else ring[0]
            if not flow.begun:
                flow.credit += self._quantum * flow.weight
                flow.begun = True
            if flow.waiting and flow.credit > 0:
                return flow
            flow.begun = False
            if new:
                new.popleft()
                ring.append(flow)
                if flow.credit > 0:
                    flow.credit = 0.0
            elif flow.credit > 0:
                ring.popleft()
                del self.flows[flow.key]
            else:
                ring.rotate(-1)
                visits += 1
                if visits > len(ring):
                    self._skip_rounds()
                    visits = 0

    def clear(self) -> None:
        """Forget all queues and debts: nobody has work."""
        self.flows.clear()
        self._new.clear()
        self._ring.clear()

    def _skip_rounds(self) -> None:
        """Give everybody the quanta of the rounds that serve nobody. So a turn takes at most two rounds of visits."""
        rounds = min(
            math.floor(-flow.credit / (self._quantum * flow.weight))
            for flow in self._ring
            if flow.waiting
        )
        if rounds > 0:
            for flow in self._ring:
                flow.credit += rounds * self._quantum * flow.weight
