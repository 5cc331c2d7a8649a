"""Faults of consumers: they are killed, frozen, added, removed, doubled, and their clocks jump."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from tests.soak import clock
from tests.soak.members import Member

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.soak.schedule import Planned
    from tests.soak.stage import Group, Stage

CLOCK_JUMPS_S: Final = (7_200, -1_800, 0)
"""How far the clock is off, one after another; certificates of the soak are older than half an hour."""
_READY_S: Final = 180.0
_TWIN: Final = "twin"


class ConsumerFaults:
    """Each method is one kind of fault, and hits every group alike."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    async def kill(self, fault: Planned) -> str:
        """Kill a member (SIGKILL); it is started again."""
        return await self._each(fault, Member.kill)

    async def kill_engine(self, fault: Planned) -> str:
        """Kill a member's engine (SIGKILL)."""
        return await self._each(fault, Member.kill_engine)

    async def freeze(self, fault: Planned) -> str:
        """Stop a member by SIGSTOP for longer than its session."""
        frozen: list[Member] = []

        def stop(member: Member) -> bool:
            stopped = member.freeze()
            if stopped:
                frozen.append(member)
            return stopped

        try:
            victims = await self._each(fault, stop)
            await asyncio.sleep(fault.hold_s)
        finally:
            for member in frozen:
                member.thaw()
        return victims

    async def _each(self, fault: Planned, action: Callable[[Member], bool]) -> str:
        names = [
            await self._stage.pick(group.members, fault.draw, action)
            for group in self._stage.groups
        ]
        return ", ".join(names)

    async def join(self, fault: Planned) -> str:
        """Add a member, in the place of another if there are enough."""
        return ", ".join([await self._grow(group, fault.draw) for group in self._stage.groups])

    async def _grow(self, group: Group, draw: float) -> str:
        if len(group.members) < group.members_max:
            return group.join()
        left = await group.leave(draw)
        return f"{group.join()} for {left}"

    async def leave(self, fault: Planned) -> str:
        """Stop a member in good order; if it is the only one, another takes its place."""
        return ", ".join([await self._shrink(group, fault.draw) for group in self._stage.groups])

    async def _shrink(self, group: Group, draw: float) -> str:
        if len(group.members) > 1:
            return await group.leave(draw)
        joined = group.join()
        return f"{await group.leave(0)}, with {joined} for it"

    async def twins(self, fault: Planned) -> str:
        """Run two members with one ``kafka.group_instance_id`` for a while."""
        self._stage.strike()  # one of them is refused before any is ready
        return await self._guests(fault, self._two)

    def _two(self, group: Group) -> list[Member]:
        return [group.start(STREAM_GUARD_KAFKA__GROUP_INSTANCE_ID=_TWIN) for _ in range(2)]

    async def jump_clocks(self, fault: Planned) -> str:
        """Let the clock of one more member of each group jump forth and back."""
        files = {group.name: group.logs / f"{group.name}.clock" for group in self._stage.groups}
        for file in files.values():
            clock.set_off(file, 0)

        def one(group: Group) -> list[Member]:
            return [group.start(**clock.environment(files[group.name]))]

        async def jump() -> None:
            self._stage.strike()
            for off_s in CLOCK_JUMPS_S:
                for file in files.values():
                    clock.set_off(file, off_s)
                await asyncio.sleep(fault.hold_s / len(CLOCK_JUMPS_S))

        names = await self._guests(fault, one, jump)
        jumps = ", ".join(f"{off_s:+d} s" for off_s in CLOCK_JUMPS_S)
        return f"{names}: {jumps}"

    async def _guests(
        self,
        fault: Planned,
        start: Callable[[Group], list[Member]],
        meanwhile: Callable[[], Awaitable[None]] | None = None,
    ) -> str:
        """Have more members in each group for the time of the fault; return their names."""
        guests = [member for group in self._stage.groups for member in start(group)]
        try:
            async with asyncio.timeout(_READY_S):
                while not any(guest.ready() for guest in guests):  # noqa: ASYNC110 - no event
                    await asyncio.sleep(0.1)
            await (asyncio.sleep(fault.hold_s) if meanwhile is None else meanwhile())
        finally:
            await asyncio.gather(*(guest.leave() for guest in guests))
        return ", ".join(guest.name for guest in guests)
