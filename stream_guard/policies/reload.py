"""Takes edits of the policies' folder live: read whole, check, prepare, then switch.

What it must never do: let a set go live that was not read whole, checked and prepared, or take the
last good one away. A bad set is refused once, with its reason, and the folder stays watched.

Edits come as plain writes, as ``git pull``, and as the swap of a symlink (a Kubernetes
ConfigMap's ``..data``). Notifications make it prompt; a regular look at sizes and times makes it
sure, since file systems over the network, and symlinks to elsewhere, send none.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from watchfiles import awatch

from stream_guard.core.errors import PolicyError
from stream_guard.policies.store import (
    POLICY_FILES,
    build_policies,
    read_policy_files,
    refuse_errors,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from stream_guard.core.vocabulary import Effort
    from stream_guard.policies.policy import PolicySet
    from stream_guard.policies.store import PolicyFiles

__all__ = ["PolicyReloader", "ReloadOutcome", "watch_folder"]

_READS_MAX: Final = (
    20  # of a folder that changes under the reader; the next notification tries anew
)
_RESCAN_MS: Final = 1_000
_DEBOUNCE_MS: Final = 200

Signature = tuple[tuple[str, int, int, int], ...]


@dataclass(slots=True, frozen=True)
class ReloadOutcome:
    """What came of one change of the folder.

    Attributes:
        kind: ``switched``: live now; ``refused``: the last good set stays; ``restored``: what was
            refused has been taken back, and the folder holds the live set again.
        sha256: of the set that is live after it.
        changed: ids of the policies that came, went or changed; empty where routes alone did.
        message: why it was refused; else empty.
    """

    kind: Literal["switched", "refused", "restored"]
    sha256: str
    changed: tuple[str, ...] = ()
    message: str = ""


class PolicyReloader:
    """Keeps the live set of policies in step with a folder.

    Args:
        path: the folder.
        live: the set that is live, read from it before.
        prepare: makes a set ready: compiles every grammar, warms every prefix. A PolicyError
            refuses the set; anything else ends :meth:`run`.
        switch: makes a prepared set live, at once and between two batches.
        report: told of each outcome, for logs, counters and health.
        effort, reasoning_tokens_max: as for :func:`~stream_guard.policies.store.load_policies`.
    """

    def __init__(
        self,
        path: Path,
        live: PolicySet,
        *,
        prepare: Callable[[PolicySet], Awaitable[None]],
        switch: Callable[[PolicySet], None],
        report: Callable[[ReloadOutcome], None] = lambda _: None,
        effort: Effort = "low",
        reasoning_tokens_max: int = 512,
    ) -> None:
        self.live = live
        self.refused: str | None = None
        """Why the folder's present content is not live; None where it is."""
        self._path = path
        self._prepare = prepare
        self._switch = switch
        self._report = report
        self._effort: Effort = effort
        self._reasoning_tokens_max = reasoning_tokens_max
        self._checked: str | None = live.sha256  # what was last looked at: its digest or its fault

    async def run(self, changes: AsyncIterator[object] | None = None) -> None:
        """Watch until cancelled.

        Args:
            changes: yields when the folder may have changed; by default :func:`watch_folder`.
        """
        async for _ in changes or watch_folder(self._path):
            await self.check()

    async def check(self) -> ReloadOutcome | None:
        """Look at the folder once; returns what came of it, or None where nothing changed.

        Raises:
            Exception: whatever ``prepare`` raises but a PolicyError.
        """
        try:
            files = await asyncio.to_thread(read_whole, self._path)
        except PolicyError as error:
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
            files, effort=self._effort, reasoning_tokens_max=self._reasoning_tokens_max
        )
        refuse_errors(policies, self._path)
        return policies

    def _refuse(self, looked_at: str, message: str) -> ReloadOutcome | None:
        if looked_at == self._checked:
            return None
        self._checked = looked_at
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
    """Read the folder until two readings agree; blocks, so call it in a thread.

    Returns None where it did not stop changing: the change that disturbed it is notified, too.

    Raises:
        PolicyError: as :func:`~stream_guard.policies.store.read_policy_files`, twice the same.
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
    """Yield at once, and whenever something in the folder may have changed, until cancelled."""
    seen = await asyncio.to_thread(_signature, path)
    yield  # for what changed since the caller last read it
    while True:
        # A folder that is taken away ends the watch; it may come back.
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
                    now = await asyncio.to_thread(_signature, path)
                    if changes or now != seen:
                        seen = now
                        yield
        yield
        await asyncio.sleep(_RESCAN_MS / 1_000)


def _is_content(_: object, path: str) -> bool:
    return f"{os.sep}.git{os.sep}" not in path


def _signature(path: Path) -> Signature:
    """Return name, inode, size and time of every file that a set is made of, links followed."""
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
