"""Starts vLLM's engine process from a fork server, which imports vLLM while the main process does so too.

vLLM offers two other ways. ``spawn`` imports everything again, after the first import: 20 s more on two cores. ``fork``
copies a process with a running event loop, sockets to Kafka and threads. A fork server avoids both. If the operator has
set ``VLLM_WORKER_MULTIPROC_METHOD``, it is used instead.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.context
import multiprocessing.forkserver
import os
import signal
import threading
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

METHOD_VARIABLE: Final = "VLLM_WORKER_MULTIPROC_METHOD"
_PRELOAD: Final = [
    "stream_guard.judging.engine.core_preload",
    "vllm.v1.engine.core",
    "vllm.v1.executor.uniproc_executor",
    "vllm.model_executor.models.gpt_oss",
    "xgrammar",
]


class EngineProcess(multiprocessing.context.ForkServerProcess):
    """A process with its parent's environment at its start, not the fork server's."""

    _environment: dict[str, str]

    def start(self) -> None:
        """Record the environment, then start."""
        self._environment = dict(os.environ)
        super().start()

    def run(self) -> None:
        """In the new process: set the environment, then work until the parent dies."""
        os.environ.update(self._environment)
        threading.Thread(target=_die_with_maker, name="parent watch", daemon=True).start()
        super().run()


def _die_with_maker() -> None:
    """End this process once its parent has ended. Otherwise vLLM outlives a killed parent."""
    maker = multiprocessing.parent_process()
    if maker is not None:
        maker.join()
        os.kill(os.getpid(), signal.SIGKILL)


class EngineContext(multiprocessing.context.ForkServerContext):
    """A fork server's context that makes :class:`EngineProcess` objects and records them."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[EngineProcess] = []

    def Process(  # type: ignore[override]  # noqa: N802 - the base has a class of this name, called just so
        self,
        *args: Any,  # noqa: ANN401
        **named: Any,  # noqa: ANN401
    ) -> EngineProcess:
        """Make a process, which is not started yet."""
        process = EngineProcess(*args, **named)
        self.made.append(process)
        return process


class _Users:
    """Counts the engines that use the fork server. It cannot end before its last child."""

    count = 0


def start_server() -> bool:
    """Start the fork server, which begins to import. Return False if the operator chose another start method."""
    if METHOD_VARIABLE in os.environ:
        return False
    multiprocessing.forkserver.set_forkserver_preload(_PRELOAD)
    multiprocessing.forkserver.ensure_running()
    _Users.count += 1
    return True


@contextlib.contextmanager
def from_server() -> Iterator[list[EngineProcess]]:
    """While active, vLLM starts its engine process from the fork server. Yields the processes made so far."""
    from vllm.v1.engine import utils as vllm_utils

    utils: Any = vllm_utils  # it imports the function that is replaced, and does not export it
    # vLLM sets it while it reads its configuration on a CPU; left there it would pass for the operator's.
    os.environ.pop(METHOD_VARIABLE, None)
    context = EngineContext()
    before = utils.get_mp_context
    utils.get_mp_context = lambda: context
    try:
        yield context.made
    finally:
        utils.get_mp_context = before


def stop_server() -> None:
    """Stop the fork server after its last user. A later start makes another."""
    _Users.count -= 1
    if _Users.count > 0:
        return
    server = multiprocessing.forkserver._forkserver  # noqa: SLF001 - it has no public stop
    stop = getattr(server, "_stop", None)
    if stop is not None:
        stop()
