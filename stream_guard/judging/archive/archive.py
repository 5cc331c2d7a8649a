"""The archive of policies: whatever goes live is kept in it, under its digest, before its first verdict is published.

Beside the verdicts in a compacted topic, or in a folder. What it must never do: let a
policy go live that is not kept, or take an entry for good without looking at its digest.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import structlog

from stream_guard.core.errors import EvidenceError, PolicyError
from stream_guard.judging.archive.entry import EntryName, Judging, read_entry, write_entry

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from stream_guard.judging.archive.entry import Entry
    from stream_guard.policies.policy import Policy, PolicySet
    from stream_guard.settings import EngineSettings, Settings

__all__ = [
    "FolderArchive",
    "Keeper",
    "Kept",
    "PolicyArchive",
    "judging_of",
]

_log = structlog.get_logger(__name__)
TOPIC_RULES_BYTES_MAX: Final = 2 << 20
"""Rule files of one policy that a topic's record holds, in bytes; more are kept there by their digests alone."""


class Kept(NamedTuple):
    """An entry as it was found: not yet looked at."""

    name: EntryName
    content: bytes
    where: str

    def read(self) -> Entry:
        """Return the entry. Raises EvidenceError where it was altered."""
        return read_entry(self.name, self.content, self.where)


class PolicyArchive(Protocol):
    """Where entries are kept."""

    async def keep(self, entries: Mapping[EntryName, bytes]) -> None:
        """Return once these are kept for good.

        Raises:
            PolicyError: they cannot be; the message names the setting.
            BrokerError: the broker did not take them in time.
        """

    async def load(self, wanted: frozenset[str] | None = None) -> list[Kept]:
        """Return the entries of the policies with these digests, or all.

        Raises:
            EvidenceError: there is no archive, or it cannot be read.
            BrokerError: the broker does not answer.
        """


class Keeper:
    """Keeps what goes live, each version once.

    Args:
        archive: where.
        judging: what prompts are made of besides policies.
        rules_bytes_max: of one policy, beyond which rule files are kept by their digests; None for no limit.
    """

    def __init__(
        self, archive: PolicyArchive, judging: Judging, rules_bytes_max: int | None
    ) -> None:
        self._archive = archive
        self._judging = judging
        self._rules_bytes_max = rules_bytes_max
        self._kept: set[EntryName] = set()

    @classmethod
    async def of(
        cls, archive: PolicyArchive | None, settings: Settings, about: Mapping[str, str]
    ) -> Keeper | None:
        """Return a keeper for an archive, or None where there is none.

        Args:
            archive: the one that the settings name; None where they turn it off.
            settings: the kind of archive, and the model.
            about: what the judge says of itself.

        Raises:
            EngineError: the model's tokenizer cannot be read.
        """
        if archive is None:
            return None
        judging = await asyncio.to_thread(judging_of, settings.engine, about)
        in_topic = settings.policies.archive == "topic"
        return cls(archive, judging, TOPIC_RULES_BYTES_MAX if in_topic else None)

    async def keep(self, policies: PolicySet) -> None:
        """Return once all of these are kept. Raises as :meth:`PolicyArchive.keep`."""
        entries = await asyncio.to_thread(self._entries, policies.policies.values())
        new = {name: content for name, content in entries.items() if name not in self._kept}
        if new:
            await self._archive.keep(new)
            self._kept.update(new)
            _log.info("policies_archived", count=len(new))

    def _entries(self, policies: Iterable[Policy]) -> dict[EntryName, bytes]:
        limit = self._rules_bytes_max
        return dict(write_entry(one, self._judging, rules_bytes_max=limit) for one in policies)


def judging_of(settings: EngineSettings, about: Mapping[str, str]) -> Judging:
    """Return what prompts are made of besides policies; reads the tokenizer of a judge that has a model.

    Args:
        settings: of the model.
        about: what the judge says of itself: it need not be the one that the settings name.

    Raises:
        EngineError: there is none.
    """
    engine = about.get("engine", "")
    if engine != "vllm":
        return Judging(engine, about.get("model", engine), None, None, settings.prompt_date)
    from stream_guard.judging.families.harmony.tokenizer import tokenizer_sha256

    digest = tokenizer_sha256(settings)
    return Judging("vllm", settings.model, settings.revision, digest, settings.prompt_date)


class FolderArchive:
    """A :class:`PolicyArchive` of files, ``<policy's digest>/<entry's digest>.json``."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def keep(self, entries: Mapping[EntryName, bytes]) -> None:
        """See :meth:`PolicyArchive.keep`."""
        await asyncio.to_thread(self._keep, entries)

    def _keep(self, entries: Mapping[EntryName, bytes]) -> None:
        try:
            for name, content in entries.items():
                self._write(self._file(name), content)
        except OSError as error:
            message = (
                f"policies.archive_path (STREAM_GUARD_POLICIES__ARCHIVE_PATH): {self._path} cannot be written "
                f"({error.strerror}); no policy goes live that is not kept there: mount a volume that this user may "
                'write, or set policies.archive to "topic" or "off"'
            )
            raise PolicyError(message) from error

    def _write(self, file: Path, content: bytes) -> None:
        with contextlib.suppress(FileNotFoundError):
            if file.read_bytes() != content:
                message = (
                    f"{file}: was altered after it was archived; move it away, keep it as evidence, and the "
                    "policy is archived anew"
                )
                raise PolicyError(message)
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        # Written whole or not at all, also where several replicas share the volume.
        handle, draft = tempfile.mkstemp(dir=file.parent, prefix=".draft-")
        try:
            with os.fdopen(handle, "wb") as out:
                out.write(content)
                out.flush()
                os.fsync(out.fileno())
            Path(draft).chmod(0o444)
            Path(draft).replace(file)
        except BaseException:
            Path(draft).unlink(missing_ok=True)
            raise

    def _file(self, name: EntryName) -> Path:
        return self._path / name.policy_sha256 / f"{name.entry_sha256}.json"

    async def load(self, wanted: frozenset[str] | None = None) -> list[Kept]:
        """See :meth:`PolicyArchive.load`."""
        return await asyncio.to_thread(lambda: list(self._load(wanted)))

    def _load(self, wanted: frozenset[str] | None) -> Iterator[Kept]:
        if not self._path.is_dir():
            message = f"policies.archive_path: {self._path} is no folder; name the one that the service writes"
            raise EvidenceError(message)
        try:
            for folder in sorted(self._path.iterdir()):
                if wanted is not None and folder.name not in wanted:
                    continue
                for file in sorted(folder.glob("*.json")):
                    name = EntryName.parse(f"{folder.name}/{file.stem}")
                    if name is not None:
                        yield Kept(name, file.read_bytes(), str(file))
        except OSError as error:
            message = f"policies.archive_path: {self._path} cannot be read ({error.strerror})"
            raise EvidenceError(message) from error
