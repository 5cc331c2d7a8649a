"""Carries out a schedule of faults, one after another, and writes down when each held.

What it must never do: decide anything that the schedule does not, but for who plays a part just then.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeAlias

from tests.soak import schedule
from tests.soak.broker_faults import BrokerFaults
from tests.soak.connection_faults import ConnectionFaults
from tests.soak.consumer_faults import ConsumerFaults
from tests.soak.facts import Fault
from tests.soak.members import now_ms
from tests.soak.people_faults import PeopleFaults
from tests.soak.record_faults import RecordFaults

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from tests.soak.schedule import Planned
    from tests.soak.stage import Stage

    Action: TypeAlias = Callable[[Planned], Awaitable[str]]


def actions(stage: Stage) -> Mapping[str, Action]:
    """Return what carries out each kind of fault; it returns whom it hit."""
    consumers, brokers = ConsumerFaults(stage), BrokerFaults(stage)
    records, connections = RecordFaults(stage), ConnectionFaults(stage)
    people = PeopleFaults(stage)
    return {
        schedule.CONSUMER_KILL: consumers.kill,
        schedule.CONSUMER_FREEZE: consumers.freeze,
        schedule.CONSUMER_JOIN: consumers.join,
        schedule.CONSUMER_LEAVE: consumers.leave,
        schedule.ENGINE_KILL: consumers.kill_engine,
        schedule.TWINS: consumers.twins,
        schedule.CLOCK: consumers.jump_clocks,
        schedule.POISON: records.poison,
        schedule.ABORT: records.abort,
        schedule.BOMB: records.bomb,
        schedule.RETENTION: records.overtake,
        schedule.BREAKER: records.trip,
        schedule.DECISIONS: people.decide,
        schedule.DELETES: people.delete,
        schedule.LEADERLESS: brokers.leaderless,
        schedule.DISK_FULL: brokers.fill_disk,
        schedule.REVOKED: connections.revoke,
        schedule.EXPIRED: connections.expire,
        **dict.fromkeys(schedule.BROKER_KINDS, brokers.lose),
        **dict.fromkeys(schedule.NETWORK_KINDS, connections.disturb),
    }


class Adversary:
    """Does what is planned to the cluster and to every group.

    Attributes:
        faults: those that were carried out.
    """

    def __init__(self, stage: Stage, say: Callable[[str], None]) -> None:
        self._stage = stage
        self._say = say
        self._actions = actions(stage)
        self.faults: list[Fault] = []

    async def run(self, planned: Sequence[Planned]) -> None:
        """Carry out all of it; at the end everything is whole again."""
        for number, fault in enumerate(planned, 1):
            await asyncio.sleep(fault.wait_s)
            self._stage.strike()
            target = await self._actions[fault.kind](fault)
            self.faults.append(Fault(fault.kind, target, self._stage.begin_ms, now_ms()))
            self._say(f"{number}/{len(planned)} {fault.kind}: {target}")
