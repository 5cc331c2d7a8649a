"""The demo's consumer: ``stream-guard run`` as a process of its own, and what its log says.

No process is left behind, however the demo ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING, Final, Self

import orjson

from stream_guard.cli.terminal import say_in_place
from stream_guard.core.errors import EngineError
from stream_guard.testing.broker.child import start_module

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from types import TracebackType

_ABORT_S: Final = 5.0


class Consumer:
    """Runs ``stream-guard run`` under a watchdog, so that it ends with us.

    Args:
        environment: of the process, whole.
        log: the file that keeps all that it logs.
        say: called with progress.
    """

    def __init__(
        self, environment: Mapping[str, str], log: Path, say: Callable[[str], None]
    ) -> None:
        self._environment = dict(environment)
        self._log = log
        self._say = say
        self._seen: dict[str, asyncio.Event] = {}
        self._exit = contextlib.ExitStack()
        self._process: asyncio.subprocess.Process | None = None
        self._following: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._process = await start_module(
            ["stream_guard", "run"],
            self._environment,
            self._exit,
            stderr=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
        )
        self._following = asyncio.create_task(self._follow())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            process = self._running
            if process.returncode is None:
                self._say("stopping the consumer")
                # An orderly end; with nothing left at stake, not waited for long.
                process.send_signal(signal.SIGTERM)
                try:
                    async with asyncio.timeout(_ABORT_S):
                        await process.wait()
                except TimeoutError:
                    os.killpg(process.pid, signal.SIGKILL)
                    await process.wait()
        finally:
            self._exit.close()

    @property
    def ended(self) -> bool:
        """Whether the process has."""
        return self._running.returncode is not None

    async def until(self, event: str, limit_s: float, *, waiting_for: str) -> float:
        """Wait until the log has an event; return how long it took, in s.

        Raises:
            EngineError: the process ended before, or it took longer than ``limit_s``.
        """
        started_s = time.monotonic()
        seen = self._seen.setdefault(event, asyncio.Event())
        while not seen.is_set():
            spent_s = time.monotonic() - started_s
            if self.ended:
                raise EngineError(f"the consumer ended before {waiting_for}; its log: {self._log}")
            if spent_s > limit_s:
                raise EngineError(f"{waiting_for}: not within {limit_s:g} s; its log: {self._log}")
            say_in_place(f"  {waiting_for}, {spent_s:.0f} s ")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await seen.wait()
        return time.monotonic() - started_s

    async def stop(self, limit_s: float) -> int:
        """Let it drain; return its exit code.

        Raises:
            EngineError: it took longer than ``limit_s``.
        """
        self._running.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(limit_s):
                return await self._running.wait()
        except TimeoutError as error:
            raise EngineError(
                f"the consumer did not stop within {limit_s:g} s; its log: {self._log}"
            ) from error

    @property
    def _running(self) -> asyncio.subprocess.Process:
        assert self._process is not None, "entered"
        return self._process

    async def _follow(self) -> None:
        stream = self._running.stderr
        assert stream is not None, "it is a pipe"
        with self._log.open("wb") as file:
            async for line in stream:
                file.write(line)
                file.flush()
                event = _event_of(line)
                if event == "assigned" and "assigned" not in self._seen:
                    self._say("the consumer has joined its group; the engine is starting")
                if event:
                    self._seen.setdefault(event, asyncio.Event()).set()


def _event_of(line: bytes) -> str:
    # What libraries print on their own is no JSON.
    try:
        document = orjson.loads(line)
    except orjson.JSONDecodeError:
        return ""
    return str(document.get("event", "")) if isinstance(document, dict) else ""
