"""What every fault acts on: the cluster, the groups, the posts, the network and the permissions of one soak."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from tests.soak.members import Member, now_ms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from tests.soak.access import Guarded
    from tests.soak.cluster import Cluster
    from tests.soak.facts import Exit, Input
    from tests.soak.live_reader import LiveReader
    from tests.soak.posting import Poster
    from tests.soak.proxy import Proxy

_ALIVE_S: Final = 180.0


@dataclass
class Group:
    """One consumer group of the program under test, in one delivery mode.

    Attributes:
        mode: ``delivery.mode``.
        name: of the group.
        verdicts: its verdict topic.
        dead_letters: its dead-letter topic.
        decisions: its decision topic.
        transactional_ids: the coordinator of one of these counts as the transaction coordinator.
        environment: of its members.
        user: who its members are to the brokers.
        logs: a folder for what they write.
        members_max: more never run side by side, but for those that a fault adds for its time.
        members: those that are in it.
        exits: of any of them.
        every: all that were ever in it.
        decided: policy and content id of the verdicts that people have decided about.
        last_decisions: by partition of its decision topic, the offset of the last decision.
    """

    mode: str
    name: str
    verdicts: str
    dead_letters: str
    decisions: str
    transactional_ids: Sequence[str]
    environment: Mapping[str, str]
    user: Guarded
    logs: Path
    members_max: int
    members: list[Member] = field(default_factory=list)
    exits: list[Exit] = field(default_factory=list)
    every: list[Member] = field(default_factory=list)
    decided: set[tuple[str, str]] = field(default_factory=set)
    last_decisions: dict[int, int] = field(default_factory=dict)
    _joined: int = 0

    def join(self) -> str:
        """Start a new member; return its name."""
        member = self.start()
        self.members.append(member)
        return member.name

    def start(self, **variables: str) -> Member:
        """Start a process of the program, which nothing else of the schedule will hit; return it.

        Args:
            variables: of its environment, besides the group's.
        """
        self._joined += 1
        name = f"{self.name}-{self._joined}"
        environment = {**self.environment, **variables}
        member = Member(name, environment, self.logs / f"{name}.log", self.exits.append)
        self.every.append(member)
        member.join()
        return member

    async def leave(self, draw: float) -> str:
        """Stop a member in good order; return its name."""
        member = self.members.pop(int(draw * len(self.members)))
        await member.leave()
        return member.name

    async def close(self) -> None:
        """Stop all members in good order, at the same time."""
        leaving, self.members = self.members, []
        await asyncio.gather(*(member.leave() for member in leaving))


@dataclass
class Stage:
    """One soak's parts, for the faults.

    Attributes:
        cluster: the brokers.
        groups: one for each delivery mode.
        poster: sends the posts.
        reader: reads what the groups write.
        proxies: between consumers and brokers, in the order of the brokers.
        posts: the input topic.
        partitions: how many it has.
        deleted: records of the input that retention deleted, as they were.
        begin_ms: when the fault under way struck, which is after its victim was found.
    """

    cluster: Cluster
    groups: Sequence[Group]
    poster: Poster
    reader: LiveReader
    proxies: Sequence[Proxy]
    posts: str
    partitions: int
    deleted: list[Input] = field(default_factory=list)
    begin_ms: int = 0

    def strike(self) -> None:
        """Note that the fault begins now."""
        self.begin_ms = now_ms()

    def partition(self, draw: float) -> int:
        """Return the partition of the input that a draw means."""
        return int(draw * self.partitions)

    def group(self, draw: float) -> Group:
        """Return one group, by the later digits of a draw."""
        return self.groups[int(draw * 1_000) % len(self.groups)]

    async def pick(
        self, members: Iterable[Member], draw: float, action: Callable[[Member], bool]
    ) -> str:
        """Do it to one of the members, the one drawn if it is up; wait while none is."""
        ordered = list(members)
        first = int(draw * len(ordered))
        async with asyncio.timeout(_ALIVE_S):
            while True:
                for member in ordered[first:] + ordered[:first]:
                    if action(member):
                        self.strike()
                        return member.name
                await asyncio.sleep(0.1)

    async def whole(self) -> None:
        """Return once no replica of ours is missing."""
        groups = self.groups
        ours = [t for g in groups for t in (g.verdicts, g.dead_letters, g.decisions)]
        await self.cluster.whole([self.posts, *ours])
