"""Spreads blocks over the actors of a Ray cluster. The only module that imports Ray.

Ray Data moves no posts: it hands out the places of blocks, and gets back how many rows each had. An actor reads its
block from the source itself, and writes the output itself. So Ray's object store holds a few bytes for each block,
whatever the source holds, and each actor holds at most :data:`BLOCKS_PER_ACTOR` blocks in memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import math
import os
import sys
import threading
import warnings
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import uvloop

from stream_guard.core.errors import EngineError, SettingsError, StreamGuardError, named
from stream_guard.core.gc_tuning import tune_garbage_collector
from stream_guard.offline.backfill.block_judge import BlockJudge
from stream_guard.offline.backfill.blocks import Block
from stream_guard.offline.backfill.places import NOT_INSTALLED

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from stream_guard.offline.backfill.block_judge import Task
    from stream_guard.offline.backfill.store import Store

__all__ = ["BLOCKS_PER_ACTOR", "TRIES_MAX", "Cluster", "Done", "judge_blocks", "open_cluster"]

BLOCKS_PER_ACTOR: Final = 4
"""Blocks that an actor judges at the same time. Few posts of each may reach the model, and the more of them the engine
runs side by side, the less each costs. The next blocks also keep it busy while the last posts of one end."""
TRIES_MAX: Final = 5
"""How often a block is begun in one run, before it counts as the cause of its actors' deaths."""
_CLOSE_S: Final = 20.0
"""How long an actor may take to close its engine; then Ray kills both."""
_STORE_BYTES: Final = 128 << 20
_TASKS_MAX: Final = 20_000
"""Ray Data's own blocks: each costs memory in the driver, so of longer plans several of our blocks share one."""
_QUIET: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


@dataclass(slots=True, frozen=True)
class Cluster:
    """The cluster, and what each actor takes of it.

    Attributes:
        address: of a running cluster; None for a private one on this machine.
        actors: how many.
        cpus, gpus: of each.
    """

    address: str | None = None
    actors: int = 1
    cpus: float = 1
    gpus: float = 0


@dataclass(slots=True, frozen=True)
class Done:
    """A block that is done.

    Attributes:
        index: of the block.
        rows: how many rows or offsets it has.
    """

    index: int
    rows: int


@contextlib.contextmanager
def open_cluster(cluster: Cluster) -> Iterator[None]:
    """Connect to a cluster, or start one on this machine and stop it at the end.

    Raises:
        SettingsError: Ray is not installed, there is no such cluster, or an actor would not fit into it.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise SettingsError(NOT_INSTALLED) from error
    if ray.is_initialized():
        # An embedding program, or a test, has connected already; it also disconnects.
        yield
        return
    # Ray prints on stdout what it has to say of a node or an actor that is lost. There our report goes.
    with contextlib.redirect_stdout(sys.stderr), _connected(cluster):
        yield


@contextlib.contextmanager
def _connected(cluster: Cluster) -> Iterator[None]:
    """Connect to Ray, and disconnect at the end."""
    import ray

    options: dict[str, Any] = {}
    if cluster.address is None:
        _check_room(cluster, {"CPU": os.cpu_count() or 1, "GPU": math.inf})
        options = {"include_dashboard": False, "object_store_memory": _STORE_BYTES}
    try:
        ray.init(
            address=cluster.address or "local",
            log_to_driver=False,
            logging_level=logging.ERROR,
            **options,
        )
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        message = (
            f"--address {cluster.address}: no Ray cluster there: {str(error).splitlines()[0]}; start one with "
            "'ray start --head', or leave --address out to use this machine"
        )
        raise SettingsError(message) from error
    try:
        if cluster.address is None:  # a cluster elsewhere may still grow
            _check_room(cluster, ray.cluster_resources())  # type: ignore[no-untyped-call]
        yield
    finally:
        # Ray's objects in reference cycles go when the collector finds them, in any thread. One that goes while the
        # cluster stops ends this process, with exit code 1 and no message.
        gc.collect()
        ray.shutdown()


def _check_room(cluster: Cluster, there: Mapping[str, float]) -> None:
    """Refuse what this machine can never run."""
    for option, kind, each in (("--cpus", "CPU", cluster.cpus), ("--gpus", "GPU", cluster.gpus)):
        wanted, has = cluster.actors * each, there.get(kind, 0)
        if wanted > has:
            message = (
                f"--actors {cluster.actors} with {option} {each:g} need {wanted:g} {kind}s, and this machine has "
                f"{has:g}; lower one of them, or name a larger cluster with --address"
            )
            raise SettingsError(message)


def judge_blocks(
    task: Task, store: Store, blocks: Sequence[Block], cluster: Cluster
) -> Iterator[Done]:
    """Judge blocks on an open cluster; yield each when its output is written, in any order.

    An actor or a node that is lost is replaced, and its blocks are judged again.

    Raises:
        StreamGuardError: what an actor met: the engine, the broker, a file.
        EngineError: actors were lost again and again.
    """
    import ray.data
    from ray.exceptions import RayError

    _silence()
    found = (
        ray.data.from_items(
            [asdict(block) for block in blocks],
            override_num_blocks=min(len(blocks), _TASKS_MAX),
        )
        .map_batches(
            BlockActor,
            batch_size=1,
            fn_constructor_args=(task, store),
            compute=ray.data.ActorPoolStrategy(
                size=cluster.actors,
                max_tasks_in_flight_per_actor=BLOCKS_PER_ACTOR + 1,
                max_concurrent_calls_per_actor=BLOCKS_PER_ACTOR,
                enable_true_multi_threading=True,
            ),
            num_cpus=cluster.cpus,
            num_gpus=cluster.gpus or None,
        )
        .iter_rows()
    )
    try:
        for row in found:
            if row["error"]:
                raise _error(row["kind"], row["error"])
            yield Done(int(row["index"]), int(row["rows"]))
    except RayError as error:
        message = (
            f"the cluster gave up: {named(_innermost(error))}; see Ray's logs of the actor, then run the same command "
            "again, which continues"
        )
        raise EngineError(message) from error


def _innermost(error: BaseException) -> BaseException:
    """Return what an actor raised, out of what Ray put around it."""
    for _ in range(8):
        cause = getattr(error, "cause", None) or error.__cause__
        if not isinstance(cause, BaseException) or cause is error:
            break
        error = cause
    return error


def _silence() -> None:
    """Let the driver's terminal show our progress and our errors only."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.enable_operator_progress_bars = False
    for name in ("ray.data", "ray"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"ray\.data\.")


def _error(kind: str, message: str) -> StreamGuardError:
    """Return the error that an actor met."""
    unseen: list[type[StreamGuardError]] = [StreamGuardError]
    while unseen:
        found = unseen.pop()
        if found.__name__ == kind:
            with contextlib.suppress(TypeError):
                return found(message)
        unseen += found.__subclasses__()
    return EngineError(message)


class BlockActor:
    """Judges blocks in a process of its own.

    Args:
        task: what is judged, and by what.
        store: where the output goes.
    """

    def __init__(self, task: Task, store: Store) -> None:
        self._task = task
        self._store = store
        self._loop = uvloop.new_event_loop()
        self._stack = AsyncExitStack()
        self._starting: asyncio.Future[BlockJudge] | None = None
        threading.Thread(target=self._loop.run_forever, name="judge", daemon=True).start()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Judge one block; return its index, its rows, and the error if there was one."""
        # NumPy's own integers are not what other libraries take.
        row: dict[str, Any] = {
            name: values[0] if isinstance(values[0], str) else int(values[0])
            for name, values in batch.items()
        }
        block = Block(**row)
        kind = said = ""
        try:
            asyncio.run_coroutine_threadsafe(self._judge(block), self._loop).result()
        except StreamGuardError as error:
            kind, said = type(error).__name__, str(error)
        except OSError as error:
            kind, said = "SettingsError", f"{self._store.option} {self._store.root}: {error}"
        return {"index": [block.index], "rows": [block.rows], "kind": [kind], "error": [said]}

    async def _judge(self, block: Block) -> None:
        # Of a node that was lost, some blocks may have been written.
        if self._store.is_done(block):
            return
        tries = await asyncio.to_thread(self._store.note_try, block)
        if tries > TRIES_MAX:
            message = (
                f"block {block.index} ({block.name}, from row {block.first}) was begun {TRIES_MAX} times, and each "
                "time its actor died; give an actor more memory, or look at these rows, then run the same command again"
            )
            raise EngineError(message)
        if self._starting is None:
            self._starting = asyncio.ensure_future(self._start())
        judge = await asyncio.shield(self._starting)
        outcome = await judge.judge(block)
        await asyncio.to_thread(self._store.write, block, outcome)
        await asyncio.to_thread(self._store.forget_tries, block)

    def __del__(self) -> None:
        """Close the engine in order. Ray Data deletes an actor's object before it ends the process.

        Otherwise Ray would kill the engine first, and its supervisor would report a death and begin to build another.
        """
        closing = asyncio.run_coroutine_threadsafe(self._stack.aclose(), self._loop)
        with contextlib.suppress(TimeoutError):
            closing.result(_CLOSE_S)

    async def _start(self) -> BlockJudge:
        judge = await self._stack.enter_async_context(BlockJudge(self._task))
        tune_garbage_collector()
        return judge
