"""Consumers as an orchestrator keeps them: the real program, started again whenever it ends.

What it must never do: leave a process behind. Each runs under the watchdog that brokers run under.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import psutil

from stream_guard.testing.broker import WATCHDOG
from tests.soak.facts import Exit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ROOT: Final = Path(__file__).resolve().parents[2]
COMMAND: Final = (sys.executable, "-m", "stream_guard", "run")
RESTART_S: Final = 1.0
STOP_S: Final = 60.0
_LOOK_S: Final = 0.05
_SIZE_S: Final = 1.0
_SAID_BYTES: Final = 8_192
State: TypeAlias = Literal["down", "running", "frozen"]


def now_ms() -> int:
    """Return Unix time in ms: the clock that brokers stamp by."""
    return time.time_ns() // 1_000_000


def _last_line(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _SAID_BYTES))
        return file.read().rstrip().rpartition(b"\n")[2].decode("utf-8", "replace")


class Member:
    """One replica: a process, and what restarts it.

    Attributes:
        state: of the process.
        peak_bytes: its largest resident size so far.
    """

    def __init__(
        self, name: str, environment: Mapping[str, str], log: Path, note: Callable[[Exit], None]
    ) -> None:
        """Start nothing yet.

        Args:
            name: for the log and the facts.
            environment: of the program.
            log: what it writes, over all its lives.
            note: told of each exit.
        """
        self.name = name
        self.state: State = "down"
        self.peak_bytes = 0
        self._environment = dict(environment)
        self._log = log
        self._note = note
        self._asked = False
        self._leaving = asyncio.Event()
        self._process: psutil.Process | None = None
        self._task: asyncio.Task[None] | None = None

    def join(self) -> None:
        """Start it, and keep it running until :meth:`leave`."""
        self._leaving.clear()
        self._task = asyncio.create_task(self._keep(), name=self.name)

    async def leave(self) -> None:
        """Stop it in good order, and do not start it again; killed after 60 s."""
        self._leaving.set()
        self._signal(signal.SIGTERM)
        if self._task is not None:
            done, _ = await asyncio.wait([self._task], timeout=STOP_S)
            if not done:
                self._signal(signal.SIGKILL)
                await self._task

    def kill(self) -> bool:
        """Kill it; return whether it was there to be killed."""
        return self._signal(signal.SIGKILL)

    def freeze(self) -> bool:
        """Stop it by SIGSTOP; return whether it was there."""
        stopped = self._signal(signal.SIGSTOP)
        if stopped:
            self.state = "frozen"
        return stopped

    def thaw(self) -> None:
        """Let it go on."""
        if self._signal(signal.SIGCONT):
            self.state = "running"

    def ready(self) -> bool:
        """Return whether it has logged that it judges."""
        return self._log.exists() and b'"event":"ready"' in self._log.read_bytes()

    def look_at_size(self) -> None:
        """Note the largest resident size that its process has had so far, of all its lives."""
        if self._process is not None:
            with contextlib.suppress(OSError):  # it has just ended
                for line in (
                    Path(f"/proc/{self._process.pid}/status").read_text("utf-8").splitlines()
                ):
                    if line.startswith("VmHWM:"):
                        self.peak_bytes = max(self.peak_bytes, int(line.split()[1]) << 10)

    def kill_engine(self) -> bool:
        """Kill the engine's process alone: the fork server's child; return whether there was one."""
        if self._process is None:
            return False
        with contextlib.suppress(psutil.Error):
            for child in self._process.children(recursive=True):
                if child.ppid() != self._process.pid and "forkserver" in " ".join(child.cmdline()):
                    child.kill()
                    return True
        return False

    def _signal(self, number: signal.Signals) -> bool:
        if self._process is None:
            return False
        if number in (signal.SIGTERM, signal.SIGKILL):
            self._asked = True
        with contextlib.suppress(psutil.NoSuchProcess):  # which also knows a reused id from ours
            self._process.send_signal(number)
            return True
        return False

    async def _keep(self) -> None:
        while not self._leaving.is_set():
            self._asked = False
            code = await self._run()
            said = "" if self._asked else _last_line(self._log)
            self._note(Exit(self.name, code, now_ms(), self._asked, said))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RESTART_S):
                    await self._leaving.wait()

    async def _run(self) -> int:
        """Run it once; return its exit code as a shell says it."""
        reader, pipe = os.pipe()
        try:
            with self._log.open("ab") as log:
                watchdog = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-I", "-S", str(WATCHDOG)),
                    *(str(reader), "", json.dumps([COMMAND])),
                    env=self._environment,
                    cwd=ROOT,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=(reader,),
                    start_new_session=True,
                )
        finally:
            os.close(reader)
        try:
            ended = asyncio.create_task(watchdog.wait())
            self._process = await _child_of(watchdog.pid, ended)
            if self._process is not None:
                self.state = "running"
                if self._leaving.is_set():  # asked to leave while it was being started
                    self._signal(signal.SIGTERM)
            while not ended.done():
                self.look_at_size()
                await asyncio.wait([ended], timeout=_SIZE_S)
            return await ended
        finally:
            self.state, self._process = "down", None
            os.close(pipe)


async def _child_of(pid: int, ended: asyncio.Task[int]) -> psutil.Process | None:
    """Return the one child of a process as soon as there is one; None where that ended first."""
    while not ended.done():
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(pid).children()
            if children:
                return children[0]
        await asyncio.sleep(_LOOK_S)
    return None
