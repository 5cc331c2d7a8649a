"""Runs a backfill: plans it, judges what is not judged yet, and checks that everything came out."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from stream_guard.core.errors import EvidenceError
from stream_guard.offline.backfill.blocks import cut
from stream_guard.offline.backfill.cluster import judge_blocks, open_cluster
from stream_guard.offline.backfill.counts import Counts
from stream_guard.offline.backfill.publishing import Publishing
from stream_guard.offline.studio.identity import engine_identity

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_guard.offline.backfill.block_judge import Task
    from stream_guard.offline.backfill.blocks import Block
    from stream_guard.offline.backfill.cluster import Cluster
    from stream_guard.offline.backfill.publishing import Published
    from stream_guard.offline.backfill.store import Store

__all__ = ["Output", "Progress", "Report", "backfill", "cut_source"]


@dataclass(slots=True)
class Report:
    """The result of a backfill.

    Attributes:
        source: as it was named.
        policies: id and version of each.
        blocks: how many.
        resumed: how many of them an earlier run had judged.
        counts: of all blocks.
        published: what is in the topic; None without one.
    """

    source: str
    policies: list[str]
    blocks: int
    resumed: int
    counts: Counts = field(default_factory=Counts)
    published: Published | None = None

    def fault(self) -> str | None:
        """Return in words how the topic differs from the folder; None if it does not."""
        there = self.published
        if there is None or there.verdicts + there.decided == self.counts.verdicts:
            return None
        return f"{self.counts.verdicts} verdicts were judged, and {there.verdicts} are in the topic"

    def describe(self) -> dict[str, Any]:
        """Return the report as plain data for JSON. It never contains a post's text."""
        return {
            "source": self.source,
            "policies": self.policies,
            "blocks": self.blocks,
            "blocks_of_an_earlier_run": self.resumed,
            **self.counts.describe(),
            "dead_letters": self.counts.letters,
            "published": None if self.published is None else asdict(self.published),
        }


@dataclass(slots=True, frozen=True)
class Output:
    """Where the verdicts go.

    Attributes:
        store: the folder that keeps them.
        topic: where they are published as well; None for nowhere.
        enforce: whether consumers act on them: then they pass people's decisions and limits first.
    """

    store: Store
    topic: str | None = None
    enforce: bool = False


async def make_plan(task: Task, store: Store, block_rows: int) -> list[Block]:
    """Return the blocks, of an earlier run if the folder holds its plan; otherwise make the plan and write it.

    Raises:
        OperatorError: the folder holds another backfill, or the source is empty.
        BrokerError: the topic cannot be read.
    """
    identity = await asyncio.to_thread(_identity, task)
    blocks = await asyncio.to_thread(store.plan, identity)
    if blocks is None:
        blocks = await cut_source(task, block_rows)
        await asyncio.to_thread(store.begin, identity, blocks)
    return blocks


async def cut_source(task: Task, block_rows: int) -> list[Block]:
    """Return the blocks of a source; raises as :func:`make_plan`."""
    parts = await task.source.parts(task.settings, block_rows)
    return list(cut(parts, _digest([policy.sha256 for policy in task.policies()])))


def _identity(task: Task) -> dict[str, str]:
    """Return what both runs of one backfill must agree in, by name."""
    settings = task.settings
    dumped = {name: getattr(settings, name).model_dump(mode="json") for name in ("post", "cascade")}
    return {
        "the source": task.source.identity(),
        **{f"policy {one.id}": one.sha256[:12] for one in task.policies()},
        "--effort": task.effort or "unset",
        "post": _digest(dumped["post"]),
        "cascade": _digest(dumped["cascade"]),
        **engine_identity(settings.engine),
    }


def _digest(value: object) -> str:
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()[:12]


class Progress(Protocol):
    """Called with what is done."""

    def __call__(self, judged: int, total: int, blocks_in_topic: int | None) -> None:
        """Show it.

        Args:
            judged: rows or offsets that are judged.
            total: all of them.
            blocks_in_topic: None where no topic is written.
        """


async def backfill(
    task: Task, output: Output, cluster: Cluster, *, block_rows: int, progress: Progress
) -> Report:
    """Judge a source, or what an earlier run left of it.

    Args:
        task: what is judged, and by what.
        output: where the verdicts go.
        cluster: where the work runs.
        block_rows: most rows of a block; an earlier run's blocks stay as they are.
        progress: called as it goes on.

    Raises:
        OperatorError: the source, the folder or the cluster cannot be used, or the sums do not agree.
        BrokerError: a topic cannot be read or written.
        EngineError: the engine does not start, or crashes too often.
    """
    store, policies = output.store, task.policies()
    blocks = await make_plan(task, store, block_rows)
    done = await asyncio.to_thread(store.done)
    left = [block for block in blocks if block.file_name not in done]
    report = Report(
        str(task.source),
        [f"{one.id}@{one.version}" for one in policies],
        len(blocks),
        len(blocks) - len(left),
    )
    await asyncio.to_thread(store.forget_tries)
    run = _Run(task, output, cluster, blocks, left, progress)
    report.published = await run.run()
    await asyncio.to_thread(store.clean)
    for _, counts in await asyncio.to_thread(lambda: list(store.counts(blocks))):
        report.counts.add(counts)
    fault = report.counts.fault(len(policies)) or report.fault()
    if fault is not None:
        message = f"{store.root}: the sums do not agree: {fault}; this is a bug, and the output is not whole"
        raise EvidenceError(message)
    return report


class _Run:
    """One run: the judging, and beside it the publishing."""

    def __init__(
        self,
        task: Task,
        output: Output,
        cluster: Cluster,
        blocks: list[Block],
        left: list[Block],
        progress: Progress,
    ) -> None:
        self._task, self._output, self._cluster = task, output, cluster
        self._blocks, self._left, self._progress = blocks, left, progress
        self._total = sum(block.rows for block in blocks)
        self._judged = self._total - sum(block.rows for block in left)
        self._in_topic: int | None = None
        self._stopped = threading.Event()

    async def run(self) -> Published | None:
        """Return what is in the topic, once all is judged and published; None without a topic."""
        if self._output.topic is None:
            await self._judge(lambda: None)
            return None
        publishing = Publishing(
            self._task,
            self._output.store,
            self._output.topic,
            await asyncio.to_thread(self._output.store.run_id),
            enforce=self._output.enforce,
        )
        loop = asyncio.get_running_loop()
        judging = asyncio.create_task(
            self._judge(lambda: loop.call_soon_threadsafe(publishing.wake))
        )
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._wait(judging))
                group.create_task(publishing.run(self._blocks, self._published))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            self._stopped.set()
            await asyncio.gather(judging, return_exceptions=True)
        return publishing.published

    async def _wait(self, judging: asyncio.Task[None]) -> None:
        await asyncio.shield(judging)

    def _published(self, blocks: int) -> None:
        self._in_topic = blocks
        self._show()

    def _show(self) -> None:
        self._progress(self._judged, self._total, self._in_topic)

    async def _judge(self, wake: Callable[[], object]) -> None:
        self._show()
        if self._left:
            try:
                await asyncio.to_thread(self._judge_all, wake)
            finally:
                self._stopped.set()  # interrupted: the thread ends after the next block
        wake()

    def _judge_all(self, wake: Callable[[], object]) -> None:
        with open_cluster(self._cluster):
            store = self._output.store
            for one in judge_blocks(self._task, store, self._left, self._cluster):
                self._judged += one.rows
                self._show()
                wake()
                if self._stopped.is_set():
                    return
