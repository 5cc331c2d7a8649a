"""Reloads the policies' folder: reads all files, checks, prepares, then switches.

Only a complete, checked and prepared set goes live. A bad set is rejected once, with the reason; the
last good set stays live and the folder is still watched.

Edits are plain writes, ``git pull``, or the swap of a symlink (``..data`` of a Kubernetes
ConfigMap). File notifications report most edits at once. Network file systems and hard links to files
elsewhere send none, so a regular scan of sizes and times finds the rest.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Literal

from watchfiles import awatch

from stream_guard.core.errors import ForeignCallError, PolicyError
from stream_guard.core.foreign_calls import call_with_deadline
from stream_guard.policies.store import (
    POLICY_FILES,
    build_policies,
    read_policy_files,
    refuse_errors,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from stream_guard.core.vocabulary import AnswerMode, Effort
    from stream_guard.policies.policy import PolicySet
    from stream_guard.policies.store import PolicyFiles

__all__ = ["PolicyReloader", "ReloadOutcome", "watch_folder"]

_READS_MAX: Final = 20  # of a folder that changes during the reading; the next notification retries
_READ_TIMEOUT_S: Final = 60.0  # a network file system whose server is away does not answer
_RESCAN_MS: Final = 1_000
_DEBOUNCE_MS: Final = 200

Signature = tuple[tuple[str, int, int, int], ...]


@dataclass(slots=True, frozen=True)
class ReloadOutcome:
    """The result of one change of the folder.

    Attributes:
        kind: ``switched``: the new set is live; ``refused``: the last good set stays live;
            ``restored``: the folder holds the live set again after a rejected change.
        sha256: of the live set afterwards.
        changed: ids of added, removed or changed policies; empty where only routes changed.
        message: the reason of a rejection; else empty.
    """

    kind: Literal["switched", "refused", "restored"]
    sha256: str
    changed: tuple[str, ...] = ()
    message: str = ""


class PolicyReloader:
    """Keeps the live set of policies in step with a folder.

    Args:
        path: the folder.
        live: the live set, read from the folder.
        prepare: prepares a set: compiles grammars, warms prefixes. A PolicyError rejects the set;
            any other exception ends :meth:`run`.
        switch: makes a prepared set live, between two batches.
        report: receives each outcome, for logs, counters and health.
        effort, reasoning_tokens_max, answer: as for :func:`~stream_guard.policies.store.load_policies`.
        routes_needed: as for :func:`~stream_guard.policies.store.build_policies`.
    """

    def __init__(  # noqa: PLR0913 - each default of policies is an argument
        self,
        path: Path,
        live: PolicySet,
        *,
        prepare: Callable[[PolicySet], Awaitable[None]],
        switch: Callable[[PolicySet], None],
        report: Callable[[ReloadOutcome], None] = lambda _: None,
        effort: Effort = "low",
        reasoning_tokens_max: int = 512,
        answer: AnswerMode = "structured",
        routes_needed: bool = True,
    ) -> None:
        self.live = live
        self.refused: str | None = None
        """Why the folder's content is not live; None where it is live."""
        self._path = path
        self._prepare = prepare
        self._switch = switch
        self._report = report
        self._effort: Effort = effort
        self._reasoning_tokens_max = reasoning_tokens_max
        self._answer = answer
        self._routes_needed = routes_needed
        self._checked: str | None = live.sha256  # digest or error of the last checked content

    async def run(self, changes: AsyncIterator[object] | None = None) -> None:
        """Watch until cancelled.

        Args:
            changes: yields when the folder may have changed; by default :func:`watch_folder`.
        """
        async for _ in changes or watch_folder(self._path):
            await self.check()

    async def check(self) -> ReloadOutcome | None:
        """Check the folder once; return the outcome, or None where nothing changed.

        Raises:
            Exception: any exception of ``prepare`` except a PolicyError.
        """
        try:
            files = await call_with_deadline(
                "policies.path", _READ_TIMEOUT_S, partial(read_whole, self._path)
            )
        except (PolicyError, ForeignCallError) as error:
            return self._refuse(str(error), str(error))
        if files is None or files.sha256 == self._checked:
            return None
        if files.sha256 == self.live.sha256:
            return self._restore()
        try:
            policies = await asyncio.to_thread(self._build, files)
            await self._prepare(policies)
        except PolicyError as error:
            return self._refuse(files.sha256, str(error))
        return self._accept(policies)

    def _build(self, files: PolicyFiles) -> PolicySet:
        policies = build_policies(
            files,
            effort=self._effort,
            reasoning_tokens_max=self._reasoning_tokens_max,
            answer=self._answer,
            routes_needed=self._routes_needed,
        )
        refuse_errors(policies, self._path)
        return policies

    def _refuse(self, checked: str, message: str) -> ReloadOutcome | None:
        if checked == self._checked:
            return None
        self._checked = checked
        self.refused = message
        outcome = ReloadOutcome("refused", self.live.sha256, message=message)
        self._report(outcome)
        return outcome

    def _restore(self) -> ReloadOutcome:
        self._checked, self.refused = self.live.sha256, None
        outcome = ReloadOutcome("restored", self.live.sha256)
        self._report(outcome)
        return outcome

    def _accept(self, policies: PolicySet) -> ReloadOutcome:
        before, self.live = self.live, policies
        self._checked, self.refused = policies.sha256, None
        self._switch(policies)
        changed = tuple(
            slug
            for slug in {**before.policies, **policies.policies}
            if before.policies.get(slug) != policies.policies.get(slug)
        )
        outcome = ReloadOutcome("switched", policies.sha256, changed)
        self._report(outcome)
        return outcome


def read_whole(path: Path) -> PolicyFiles | None:
    """Read the folder until two readings agree. Blocks, so call it in a thread.

    Returns None where the folder did not stop changing; the next notification retries.

    Raises:
        PolicyError: two readings raised the same error.
    """
    before: PolicyFiles | str | None = None
    for _ in range(_READS_MAX):
        now: PolicyFiles | str
        try:
            now = read_policy_files(path)
        except PolicyError as error:
            now = str(error)
        if now == before:
            if isinstance(now, str):
                raise PolicyError(now)
            return now
        before = now
    return None


async def watch_folder(path: Path) -> AsyncIterator[None]:
    """Yield once at the start, and after each possible change of the folder, until cancelled."""
    seen = await _look_up(path)
    yield  # for changes since the caller's last reading
    while True:
        # Removing the folder ends the watch; the folder may return.
        with suppress(OSError):
            async with aclosing(
                awatch(
                    path,
                    watch_filter=_is_content,
                    debounce=_DEBOUNCE_MS,
                    rust_timeout=_RESCAN_MS,
                    yield_on_timeout=True,
                )
            ) as noticed:
                async for changes in noticed:
                    now = await _look_up(path)
                    if changes or now != seen:
                        seen = now
                        yield
        yield
        await asyncio.sleep(_RESCAN_MS / 1_000)


def _is_content(_: object, path: str) -> bool:
    return f"{os.sep}.git{os.sep}" not in path


async def _look_up(path: Path) -> Signature | None:
    """Return the folder's signature; None where its file system does not answer, which is another one."""
    try:
        return await call_with_deadline(
            "policies.path, file states", _READ_TIMEOUT_S, partial(_signature, path)
        )
    except ForeignCallError:
        return None


def _signature(path: Path) -> Signature:
    """Return path, inode, size and time of each file of the set; links are followed."""
    found: list[tuple[str, int, int, int]] = []
    with suppress(OSError):
        for entry in sorted(path.iterdir()):
            if entry.name.startswith((".", "_")):
                continue
            for file in (entry, *(entry / name for name in POLICY_FILES)):
                with suppress(OSError):
                    stat = file.stat()
                    found.append((str(file), stat.st_ino, stat.st_size, stat.st_mtime_ns))
    return tuple(found)
