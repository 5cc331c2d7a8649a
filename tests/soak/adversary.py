"""Carries out a schedule of faults, one after another, and writes down when each held.

What it must never do: decide anything that the schedule does not, but for who plays a part just then. One broker is
lost at a time, and the next only once the cluster is whole: losing two of three is promised to nobody.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from tests.soak import posting, schedule
from tests.soak.facts import Exit, Fault
from tests.soak.members import Member, now_ms

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from tests.soak.cluster import Cluster
    from tests.soak.posting import Poster
    from tests.soak.schedule import Planned

POISON_BURST: Final = 40
ABORTED_RECORDS: Final = 2_000
BOMBS: Final = 3
_ALIVE_S: Final = 90.0


@dataclass
class Group:
    """One consumer group of the program under test, in one delivery mode.

    Attributes:
        mode: ``delivery.mode``.
        name: of the group.
        verdicts: its verdict topic.
        dead_letters: its dead-letter topic.
        transactional_ids: the coordinator of one of these counts as the transaction coordinator.
        environment: of its members.
        logs: a folder for what they write.
        members_max: more never run side by side.
        members: those that are in it.
        exits: of any of them.
    """

    mode: str
    name: str
    verdicts: str
    dead_letters: str
    transactional_ids: Sequence[str]
    environment: Mapping[str, str]
    logs: Path
    members_max: int
    members: list[Member] = field(default_factory=list)
    exits: list[Exit] = field(default_factory=list)
    _joined: int = 0

    def join(self) -> str:
        """Start a new member; return its name."""
        self._joined += 1
        name = f"{self.name}-{self._joined}"
        member = Member(name, self.environment, self.logs / f"{name}.log", self.exits.append)
        self.members.append(member)
        member.join()
        return name

    async def leave(self, draw: float) -> str:
        """Stop a member in good order; return its name."""
        member = self.members.pop(int(draw * len(self.members)))
        await member.leave()
        return member.name

    async def close(self) -> None:
        """Stop all members in good order, at the same time."""
        leaving, self.members = self.members, []
        await asyncio.gather(*(member.leave() for member in leaving))


class Adversary:
    """Does what is planned to the cluster and to every group."""

    def __init__(
        self,
        cluster: Cluster,
        groups: Sequence[Group],
        poster: Poster,
        *,
        posts: str,
        partitions: int,
        say: Callable[[str], None],
    ) -> None:
        self._cluster = cluster
        self._groups = groups
        self._poster = poster
        self._posts = posts
        self._partitions = partitions
        self._say = say
        self._begin_ms = (
            0  # of the fault under way: when it struck, which is after its victim was found
        )
        self.faults: list[Fault] = []

    async def run(self, planned: Sequence[Planned]) -> None:
        """Carry out all of it; at the end everything is whole again."""
        actions: dict[str, Callable[[Planned], Awaitable[str]]] = {
            schedule.CONSUMER_KILL: self._kill_consumers,
            schedule.CONSUMER_FREEZE: self._freeze_consumers,
            schedule.CONSUMER_JOIN: self._join,
            schedule.CONSUMER_LEAVE: self._leave,
            schedule.ENGINE_KILL: self._kill_engines,
            schedule.POISON: self._poison,
            schedule.ABORT: self._abort,
            schedule.BOMB: self._bomb,
            schedule.BROKER_KILL: self._lose_broker,
            schedule.BROKER_STOP: self._lose_broker,
            schedule.BROKER_FREEZE: self._lose_broker,
        }
        for number, fault in enumerate(planned, 1):
            await asyncio.sleep(fault.wait_s)
            self._begin_ms = now_ms()
            target = await actions[fault.kind](fault)
            self.faults.append(Fault(fault.kind, target, self._begin_ms, now_ms()))
            self._say(f"{number}/{len(planned)} {fault.kind}: {target}")

    # Consumers: the same in every group

    async def _kill_consumers(self, fault: Planned) -> str:
        victims = [
            await self._pick(group.members, fault.draw, Member.kill) for group in self._groups
        ]
        return ", ".join(victims)

    async def _kill_engines(self, fault: Planned) -> str:
        victims = [
            await self._pick(group.members, fault.draw, Member.kill_engine)
            for group in self._groups
        ]
        return ", ".join(victims)

    async def _freeze_consumers(self, fault: Planned) -> str:
        frozen: list[Member] = []

        def freeze(member: Member) -> bool:
            stopped = member.freeze()
            if stopped:
                frozen.append(member)
            return stopped

        try:
            victims = [
                await self._pick(group.members, fault.draw, freeze) for group in self._groups
            ]
            await asyncio.sleep(fault.hold_s)
        finally:
            for member in frozen:
                member.thaw()
        return ", ".join(victims)

    async def _pick(
        self, members: Iterable[Member], draw: float, action: Callable[[Member], bool]
    ) -> str:
        """Do it to one of the members, the one drawn if it is up; wait where none is."""
        ordered = list(members)
        first = int(draw * len(ordered))
        async with asyncio.timeout(_ALIVE_S):
            while True:
                for member in ordered[first:] + ordered[:first]:
                    if action(member):
                        self._begin_ms = now_ms()
                        return member.name
                await asyncio.sleep(0.1)

    async def _join(self, fault: Planned) -> str:
        return ", ".join([await self._grow(group, fault.draw) for group in self._groups])

    async def _grow(self, group: Group, draw: float) -> str:
        if len(group.members) < group.members_max:
            return group.join()
        left = await group.leave(draw)
        return f"{group.join()} for {left}"

    async def _leave(self, fault: Planned) -> str:
        return ", ".join([await self._shrink(group, fault.draw) for group in self._groups])

    async def _shrink(self, group: Group, draw: float) -> str:
        if len(group.members) > 1:
            return await group.leave(draw)
        joined = group.join()
        return f"{await group.leave(0)}, with {joined} for it"

    async def _poison(self, fault: Planned) -> str:
        partition = int(fault.draw * self._partitions)
        self._poster.poison(partition, POISON_BURST)
        return f"{POISON_BURST} malformed records in partition {partition}"

    async def _abort(self, fault: Planned) -> str:
        partition = int(fault.draw * self._partitions)
        await posting.abort_long(
            self._cluster.bootstrap,
            self._posts,
            partition,
            ABORTED_RECORDS,
            f"long-{len(self.faults)}",
        )
        return f"{ABORTED_RECORDS} records of a transaction in partition {partition}"

    async def _bomb(self, fault: Planned) -> str:
        partition = int(fault.draw * self._partitions)
        await posting.send_bombs(self._cluster.bootstrap, self._posts, partition, BOMBS)
        return f"{BOMBS} records of {posting.BOMB_BYTES >> 20} MiB in partition {partition}"

    # Brokers

    async def _lose_broker(self, fault: Planned) -> str:
        cluster = self._cluster
        group = self._groups[int(fault.draw * 1_000) % len(self._groups)]
        node, what = await cluster.playing(
            fault.role,
            fault.draw,
            posts=self._posts,
            verdicts=group.verdicts,
            group=group.name,
            transactional_ids=group.transactional_ids,
        )
        self._begin_ms = now_ms()
        if fault.kind == schedule.BROKER_FREEZE:
            java = cluster.freeze(node)
            try:
                await asyncio.sleep(fault.hold_s)
            finally:
                java.resume()
        else:
            await (cluster.kill(node) if fault.kind == schedule.BROKER_KILL else cluster.stop(node))
            await asyncio.sleep(fault.hold_s)
            await cluster.restart(node)
        await self.whole()
        return f"broker {node}, {what}"

    async def whole(self) -> None:
        """Return once no replica of ours is missing."""
        written = [
            topic for group in self._groups for topic in (group.verdicts, group.dead_letters)
        ]
        await self._cluster.whole([self._posts, *written])
