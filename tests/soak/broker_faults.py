"""Faults of brokers: each is lost by its role, one partition loses its leader, or a disk is full.

One broker is lost at a time, and the next only once the cluster is whole: losing two of three is promised to nobody.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.soak import schedule

if TYPE_CHECKING:
    from tests.soak.schedule import Planned
    from tests.soak.stage import Stage


class BrokerFaults:
    """Each method is one kind of fault; at its end the cluster is whole again."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    async def lose(self, fault: Planned) -> str:
        """Kill, stop or freeze the broker that plays a role."""
        stage, cluster = self._stage, self._stage.cluster
        group = stage.group(fault.draw)
        node, what = await cluster.playing(
            fault.role,
            fault.draw,
            posts=stage.posts,
            verdicts=group.verdicts,
            group=group.name,
            transactional_ids=group.transactional_ids,
        )
        stage.strike()
        if fault.kind == schedule.BROKER_FREEZE:
            java = cluster.freeze(node)
            try:
                await asyncio.sleep(fault.hold_s)
            finally:
                java.resume()
        else:
            await (cluster.kill(node) if fault.kind == schedule.BROKER_KILL else cluster.stop(node))
            await self._return(node, fault.hold_s)
        await stage.whole()
        return f"broker {node}, {what}"

    async def leaderless(self, fault: Planned) -> str:
        """Leave one verdict partition one replica, and stop its broker; other partitions get new leaders.

        It is stopped in good order: of a killed one Kafka does not know whether it has all that it acknowledged, and
        makes it no leader again.
        """
        stage, cluster = self._stage, self._stage.cluster
        topic = stage.group(fault.draw).verdicts
        partition, node = await cluster.leader(topic, fault.draw)
        every = await cluster.replicas(topic, partition)
        await cluster.assign(topic, partition, [node])
        stage.strike()
        await cluster.stop(node)
        await self._return(node, fault.hold_s)
        await cluster.assign(topic, partition, every)
        await stage.whole()
        return f"partition {partition} of {topic}, with broker {node}"

    async def fill_disk(self, fault: Planned) -> str:
        """Let no file of a broker grow any more; Kafka then halts the broker, which has one disk."""
        stage, cluster = self._stage, self._stage.cluster
        partition, node = await cluster.leader(stage.posts, fault.draw)
        stage.strike()
        await cluster.fill_disk(node)
        await self._return(node, fault.hold_s)
        await stage.whole()
        return f"broker {node}, {schedule.INPUT_LEADER} of partition {partition}"

    async def _return(self, node: int, hold_s: float) -> None:
        await asyncio.sleep(hold_s)
        await self._stage.cluster.restart(node)
