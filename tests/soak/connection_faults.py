"""Faults between consumers and brokers: a bad network, permissions taken away, certificates that expire."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from tests.soak import schedule

if TYPE_CHECKING:
    from tests.soak.proxy import Proxy
    from tests.soak.schedule import Planned
    from tests.soak.stage import Stage

DELAY_S: Final = 0.25
SLOW_BYTES_PER_S: Final = 20_000
CERTIFICATE_LIFE_S: Final = 3.0


class ConnectionFaults:
    """Each method is one kind of fault."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    async def disturb(self, fault: Planned) -> str:
        """Delay, cut, mute or slow down the connections to one broker, or to all."""
        proxies = list(self._stage.proxies)
        one = int(fault.draw * (len(proxies) + 1))
        hit = proxies if one == len(proxies) else [proxies[one]]
        self._stage.strike()
        try:
            for proxy in hit:
                _disturb(proxy, fault.kind)
            await asyncio.sleep(fault.hold_s)
        finally:
            for proxy in hit:
                proxy.heal()
        return "all brokers" if hit == proxies else f"broker {one + 1}"

    async def revoke(self, fault: Planned) -> str:
        """Take one permission of each group's user away, and give it back."""
        users = [group.user for group in self._stage.groups]
        self._stage.strike()
        taken = [await user.take_away(fault.draw) for user in users]
        try:
            await asyncio.sleep(fault.hold_s)
        finally:
            for user, grant in zip(users, taken, strict=True):
                await user.give_back(grant)
        return ", ".join(grant.name for grant in taken)

    async def expire(self, fault: Planned) -> str:
        """Let the certificates of all members expire, make them connect again, and replace the certificates."""
        users = [group.user for group in self._stage.groups]
        for user in users:
            user.write_certificate(life_s=CERTIFICATE_LIFE_S)
        try:
            await asyncio.sleep(CERTIFICATE_LIFE_S + 1)
            self._stage.strike()
            for proxy in self._stage.proxies:
                proxy.cut()
            await asyncio.sleep(fault.hold_s)
        finally:
            for user in users:
                user.write_certificate()
        return "of every member"


def _disturb(proxy: Proxy, kind: str) -> None:
    if kind == schedule.NETWORK_DELAY:
        proxy.delay_s = DELAY_S
    elif kind == schedule.NETWORK_CUT:
        proxy.refusing = True
        proxy.cut()
    elif kind == schedule.NETWORK_MUTE:
        proxy.mute()
    else:
        proxy.bytes_per_s = SLOW_BYTES_PER_S
