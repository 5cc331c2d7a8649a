"""The demo's programs: commands of Stream Guard, each as a process of its own, and what their logs say.

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
_COMPLAINT: Final = b"stream-guard: "
"""Begins the line in which a command says why it ends."""
_PRINTED: Final = "a printed line"


class Program:
    """Runs a command of Stream Guard under a watchdog, so that it ends with us.

    Args:
        name: what the demo calls it, such as ``the consumer``.
        command: such as ``run``.
        environment: of the process, whole.
        log: the file that keeps all that it logs.
        say: called with progress.
    """

    def __init__(
        self,
        name: str,
        command: str,
        environment: Mapping[str, str],
        log: Path,
        say: Callable[[str], None],
    ) -> None:
        self._name = name
        self._command = command
        self._environment = dict(environment)
        self._log = log
        self._say = say
        self._seen: dict[str, asyncio.Event] = {}
        self._exit = contextlib.ExitStack()
        self._process: asyncio.subprocess.Process | None = None
        self._following: list[asyncio.Task[None]] = []
        self._printed = ""
        self._complaint = ""

    async def __aenter__(self) -> Self:
        self._process = await start_module(
            ["stream_guard", self._command],
            self._environment,
            self._exit,
            stderr=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        self._following = [
            asyncio.create_task(self._follow()),
            asyncio.create_task(self._read_printed()),
        ]
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
                self._say(f"stopping {self._name}")
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
                raise await self.failure(f"before {waiting_for}")
            if spent_s > limit_s:
                raise EngineError(f"{waiting_for}: not within {limit_s:g} s; its log: {self._log}")
            say_in_place(f"  {waiting_for}, {spent_s:.0f} s ")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await seen.wait()
        return time.monotonic() - started_s

    async def printed(self, limit_s: float, *, waiting_for: str) -> str:
        """Return the first line that it prints. Raises as :meth:`until`."""
        await self.until(_PRINTED, limit_s, waiting_for=waiting_for)
        return self._printed

    async def failure(self, when: str) -> EngineError:
        """Return the error for a process that ended by itself, with its own last words."""
        code = await self._running.wait()
        # Its last words may still be in the pipe.
        await asyncio.wait(self._following, timeout=_ABORT_S)
        because = self._complaint or f"exit code {code}"
        return EngineError(f"{self._name} ended {when}: {because}; its log: {self._log}")

    async def wait(self) -> None:
        """Return once the process has ended."""
        await self._running.wait()

    async def stop(self, limit_s: float) -> int:
        """Let it drain; return its exit code.

        Raises:
            EngineError: it took longer than ``limit_s``.
        """
        if not self.ended:
            self._running.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(limit_s):
                return await self._running.wait()
        except TimeoutError as error:
            raise EngineError(
                f"{self._name} did not stop within {limit_s:g} s; its log: {self._log}"
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
                    self._say(f"{self._name} has joined its group; the engine is starting")
                if event:
                    self._seen.setdefault(event, asyncio.Event()).set()
                elif line.startswith(_COMPLAINT):
                    self._complaint = line[len(_COMPLAINT) :].decode(errors="replace").strip()

    async def _read_printed(self) -> None:
        stream = self._running.stdout
        assert stream is not None, "it is a pipe"
        async for line in stream:
            if not self._printed:
                self._printed = line.decode(errors="replace").strip()
                self._seen.setdefault(_PRINTED, asyncio.Event()).set()


def _event_of(line: bytes) -> str:
    # What libraries print on their own is no JSON.
    try:
        document = orjson.loads(line)
    except orjson.JSONDecodeError:
        return ""
    return str(document.get("event", "")) if isinstance(document, dict) else ""
