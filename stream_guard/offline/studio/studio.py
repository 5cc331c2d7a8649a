"""Runs the studio: an engine, the socket at which commands find it, the author's workbench and the folder's watch."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stream_guard.core.errors import PolicyError
from stream_guard.offline.session import OfflineJudge
from stream_guard.offline.studio.address import Address, socket_path
from stream_guard.offline.studio.identity import engine_identity
from stream_guard.offline.studio.server import StudioServer
from stream_guard.offline.studio.warm_engine import WarmEngine
from stream_guard.offline.studio.workbench import Workbench
from stream_guard.policies.policy import PolicySet
from stream_guard.policies.reload import PolicyReloader, watch_folder

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from stream_guard.judging.contract import Judge
    from stream_guard.offline.studio.workbench import Revision
    from stream_guard.policies.reload import ReloadOutcome
    from stream_guard.settings import Settings

__all__ = ["Saved", "Studio"]


@dataclass(slots=True, frozen=True)
class Saved:
    """The result of a saved policy.

    Attributes:
        revisions: each policy that changed, and what it changed.
        seconds: from the time of the saved file to the last verdict, in s; None if the version is refused.
        refused: why the new version is not used; the last good one stays.
    """

    revisions: tuple[Revision, ...] = ()
    seconds: float | None = None
    refused: str | None = None


class Studio:
    """A studio to run once.

    Args:
        settings: the sections ``studio``, ``engine`` and ``cascade``.
        folder: of the policies.
        policies: as read from the folder.
        slugs: ids of the policies to judge by; empty for every policy of the folder.
        saved: called after each change of the folder that changed a policy.
        judge: the model's judge; by default that of the settings.

    Raises:
        EngineError: the engine is not installed.
    """

    def __init__(
        self,
        settings: Settings,
        folder: Path,
        policies: PolicySet,
        slugs: Sequence[str],
        saved: Callable[[Saved], None],
        *,
        judge: Judge | None = None,
    ) -> None:
        self._settings = settings
        self._folder = folder
        self._policies = policies
        self._saved = saved
        self._engine = WarmEngine(settings, judge=judge)
        self.workbench = Workbench(OfflineJudge(settings, judge=self._engine), policies, slugs)
        self._server = StudioServer(
            self._engine, engine_identity(settings.engine), self.note_activity
        )
        self._active_at_s = time.monotonic()
        self._told = asyncio.Event()

    @property
    def path(self) -> Path:
        """The socket at which commands find it."""
        return socket_path(self._settings.studio)

    def note_activity(self) -> None:
        """Restart the idle timeout."""
        self._active_at_s = time.monotonic()

    async def run(
        self,
        starting: Callable[[], AbstractContextManager[object]],
        talk: Callable[[Studio], Coroutine[None, None, str]],
    ) -> str:
        """Start the engine, serve until the end, and return why it ended.

        Args:
            starting: entered while the engine starts.
            talk: talks with the author, and returns why that ended.

        Raises:
            EngineError: the engine does not start, or crashes too often.
            SettingsError: a studio runs already, or its socket cannot be made.
        """
        with Address(self.path) as address, self._signals():
            tasks: list[asyncio.Task[str]] = []
            try:
                await self._server.start(address.listener)
                with starting():
                    await self._until_told(self._engine.start(self._first_policies()))
                if self._told.is_set():
                    return "ended by a signal"
                self.note_activity()
                tasks = [
                    asyncio.create_task(talk(self)),
                    asyncio.create_task(self._wait_told()),
                    asyncio.create_task(self._wait_idle()),
                    asyncio.create_task(self._watch()),
                    asyncio.create_task(self._fail_with_engine()),
                ]
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                return done.pop().result()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await self._server.close()
                await self._engine.close()

    def _first_policies(self) -> PolicySet:
        found = {policy.id: policy for policy in self.workbench.policies}
        return PolicySet(found, default=tuple(found))

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._told.set)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                loop.remove_signal_handler(number)

    async def _until_told(self, work: Awaitable[None]) -> None:
        """Await work, unless a signal ends it."""
        task = asyncio.ensure_future(work)
        told = asyncio.create_task(self._told.wait())
        try:
            await asyncio.wait([task, told], return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
        finally:
            for one in (task, told):
                one.cancel()
            await asyncio.gather(task, told, return_exceptions=True)

    async def _wait_told(self) -> str:
        await self._told.wait()
        return "ended by a signal"

    async def _wait_idle(self) -> str:
        limit_s = self._settings.studio.idle_timeout_s
        while True:
            if self._server.connections:
                self.note_activity()
            left_s = self._active_at_s + limit_s - time.monotonic()
            if left_s <= 0:
                return f"ended: idle for {limit_s:g} s (studio.idle_timeout_s)"
            await asyncio.sleep(left_s)

    async def _fail_with_engine(self) -> str:
        raise await self._engine.wait_failed()

    async def _watch(self) -> str:
        engine = self._settings.engine
        waiting: list[PolicySet] = []
        refusals: list[str] = []

        def note(outcome: ReloadOutcome) -> None:
            if outcome.kind == "refused":
                refusals.append(outcome.message)

        async def prepare(policies: PolicySet) -> None:
            # The round prepares those that it judges by.
            del policies

        reloader = PolicyReloader(
            self._folder,
            self._policies,
            prepare=prepare,
            switch=waiting.append,
            report=note,
            effort=engine.effort,
            reasoning_tokens_max=engine.reasoning_tokens_max,
            routes_needed=False,
        )
        async for _ in watch_folder(self._folder):
            await reloader.check()
            while refusals:
                self.note_activity()
                self._saved(Saved(refused=refusals.pop()))
            while waiting:
                self.note_activity()
                await self._judge_again(waiting.pop())
        return "ended: the folder is watched no more"

    async def _judge_again(self, policies: PolicySet) -> None:
        try:
            revisions = await self.workbench.switch(policies)
        except PolicyError as error:
            self._saved(Saved(refused=str(error)))
            return
        if revisions:
            times = [_saved_at_s(self._folder / one.policy.id) for one in revisions]
            self._saved(Saved(tuple(revisions), max(0.0, time.time() - max(times))))


def _saved_at_s(folder: Path) -> float:
    """Return when a file of a policy was last saved, as Unix time in s; 0 where none is left."""
    with contextlib.suppress(OSError):
        return max(file.stat().st_mtime for file in folder.iterdir())
    return 0.0
