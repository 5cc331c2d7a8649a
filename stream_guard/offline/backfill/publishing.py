"""Publishes a backfill's verdicts to a topic in the order of the plan, while other blocks are still judged."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from stream_guard.core.errors import SettingsError
from stream_guard.kafka.part_writer import PartWriter
from stream_guard.kafka.sinks import user_of_topic
from stream_guard.offline.backfill.enforcing import Enforcer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stream_guard.offline.backfill.block_judge import Task
    from stream_guard.offline.backfill.blocks import Block
    from stream_guard.offline.backfill.store import Store
    from stream_guard.settings import Settings

__all__ = ["Published", "Publishing", "check_topic"]


@dataclass(slots=True)
class Published:
    """What is in the topic.

    Attributes:
        blocks: how many, from the first on.
        verdicts: how many.
        limited: how many of them have a review in place of an action, because a limit was reached.
        decided: how many were left out, because a person has decided about the post.
    """

    blocks: int = 0
    verdicts: int = 0
    limited: int = 0
    decided: int = 0


def check_topic(settings: Settings, topic: str, source: str | None, *, enforce: bool) -> None:
    """Refuse a topic that these verdicts must not be written to.

    Args:
        settings: all sections; ``kafka`` and ``cascade`` are used.
        topic: where the verdicts go.
        source: the topic whose records are judged; None for files.
        enforce: whether consumers are meant to act on the verdicts.

    Raises:
        SettingsError: the message says why, and what to do.
    """
    live = settings.kafka.verdict_topic
    if not enforce:
        if topic == live:
            message = (
                f"--out topic:{topic}: is kafka.verdict_topic, and consumers act on what is in it; create a topic for "
                "these verdicts, or mean it and add --enforce"
            )
            raise SettingsError(message)
        user = user_of_topic(settings, topic)
        if user is not None or topic == source:
            message = (
                f"--out topic:{topic}: is {user or 'the source'}; create a topic for these verdicts"
            )
            raise SettingsError(message)
        return
    if source is None:
        raise SettingsError(
            "--enforce: verdicts on files supersede nothing, since live verdicts name records; judge topic:NAME"
        )
    if topic != live:
        message = (
            f"--enforce: --out topic:{topic} is not kafka.verdict_topic ({live!r}), where consumers look for verdicts; "
            f"write --out topic:{live}"
        )
        raise SettingsError(message)


class Publishing:
    """Publishes what is judged; :meth:`run` it beside the judging.

    Args:
        task: what is judged.
        store: where the verdicts are.
        topic: where they go.
        enforce: whether they pass people's decisions and limits first.
        run_id: of the backfill.

    Attributes:
        published: what is in the topic.
    """

    def __init__(self, task: Task, store: Store, topic: str, run_id: str, *, enforce: bool) -> None:
        self._task = task
        self._store = store
        self._topic = topic
        self._run_id = run_id
        self._enforce = enforce
        self._changed = asyncio.Event()
        self.published = Published()

    def wake(self) -> None:
        """Look again which blocks are done."""
        self._changed.set()

    async def run(self, blocks: Sequence[Block], moved: Callable[[int], None]) -> None:
        """Publish all blocks; return when all are in the topic.

        Args:
            blocks: the plan.
            moved: called with the number of blocks in the topic.

        Raises:
            BrokerError: the topic cannot be written, or what is asked first cannot be read.
        """
        async with PartWriter(self._task.settings, self._topic, self._run_id) as writer:
            noted = Published(**await asyncio.to_thread(self._store.published))
            # Brokers forget a group's position after offsets.retention.minutes; the note is at most a block behind.
            at = max(noted.blocks, await writer.position())
            for block in blocks[noted.blocks : at]:
                noted.verdicts += len(await asyncio.to_thread(self._store.read, block))
            noted.blocks, self.published = at, noted
            moved(at)
            if not self._enforce:
                await self._publish(blocks, writer, None, moved)
                return
            async with Enforcer(self._task.settings, self._task.policies()) as enforcer:
                await self._publish(blocks, writer, enforcer, moved)

    async def _publish(
        self,
        blocks: Sequence[Block],
        writer: PartWriter,
        enforcer: Enforcer | None,
        moved: Callable[[int], None],
    ) -> None:
        for block in blocks[self.published.blocks :]:
            while True:
                self._changed.clear()  # before the look: what is written after it is noticed
                if await asyncio.to_thread(self._store.is_done, block):
                    break
                await self._changed.wait()
            verdicts = await asyncio.to_thread(self._store.read, block)
            limited = decided = 0
            if enforcer is not None:
                allowed = await enforcer.allow(verdicts)
                verdicts, limited, decided = allowed.verdicts, allowed.limited, allowed.decided
            await writer.write(block.index, verdicts)
            self.published.blocks += 1
            self.published.verdicts += len(verdicts)
            self.published.limited += limited
            self.published.decided += decided
            await asyncio.to_thread(self._store.note_published, asdict(self.published))
            moved(self.published.blocks)
