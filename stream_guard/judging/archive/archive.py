"""The archive of policies: each policy is stored under its digest before its first verdict is published.

The archive is a compacted topic or a folder. A policy that cannot be stored does not go live.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import structlog

from stream_guard.core.errors import EvidenceError, PolicyError
from stream_guard.core.whole_files import write_whole
from stream_guard.judging.archive.entry import EntryName, Judging, read_entry, write_entry

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from stream_guard.judging.archive.entry import Entry
    from stream_guard.judging.families.family import Template
    from stream_guard.policies.policy import Policy, PolicySet
    from stream_guard.settings import EngineSettings, Settings

__all__ = [
    "FolderArchive",
    "Keeper",
    "Kept",
    "Note",
    "PolicyArchive",
    "judging_of",
]

_log = structlog.get_logger(__name__)
TOPIC_RULES_BYTES_MAX: Final = 2 << 20
"""Largest size of one policy's rule files in a topic's record, in bytes; of larger ones only digests are stored."""


class Kept(NamedTuple):
    """An entry as it was found, not verified yet.

    Attributes:
        name: under which it was stored.
        content: its bytes.
        where: file or record, for messages.
    """

    name: EntryName
    content: bytes
    where: str

    def read(self) -> Entry:
        """Return the entry. Raises EvidenceError if it was altered."""
        return read_entry(self.name, self.content, self.where)


class Note(NamedTuple):
    """Another document of the archive, as it was found.

    Attributes:
        key: under which it was stored; it has a slash and is no name of an entry.
        content: its bytes.
        where: file or record, for messages.
    """

    key: str
    content: bytes
    where: str


class PolicyArchive(Protocol):
    """Stores entries, and notes about them."""

    async def keep(self, entries: Mapping[EntryName, bytes]) -> None:
        """Return once these entries are stored.

        Raises:
            PolicyError: they cannot be stored; the message names the setting.
            BrokerError: the broker did not acknowledge them in time.
        """

    async def load(self, wanted: frozenset[str] | None = None) -> list[Kept]:
        """Return the entries of the policies with these digests, or all.

        Raises:
            EvidenceError: there is no archive, or it cannot be read.
            BrokerError: the broker does not answer.
        """

    async def add_note(self, key: str, content: bytes) -> None:
        """Return once a note is stored. Raises as :meth:`keep`."""

    async def notes(self, prefix: str) -> list[Note]:
        """Return the notes whose keys begin with a prefix that ends in a slash; empty if there is no archive yet.

        Raises:
            EvidenceError: the archive cannot be read.
            BrokerError: the broker does not answer.
        """


class Keeper:
    """Stores each policy that goes live, each version once.

    Args:
        archive: where to store.
        judging: what prompts are made of besides policies.
        template: renders the prompts; None without a model.
        rules_bytes_max: largest size of one policy's rule files, in bytes; of larger ones only digests are stored.
            None for no limit.
    """

    def __init__(
        self,
        archive: PolicyArchive,
        judging: Judging,
        template: Template | None,
        rules_bytes_max: int | None,
    ) -> None:
        self._archive = archive
        self._judging = judging
        self._template = template
        self._rules_bytes_max = rules_bytes_max
        self._kept: set[EntryName] = set()

    @classmethod
    async def of(
        cls, archive: PolicyArchive | None, settings: Settings, about: Mapping[str, str]
    ) -> Keeper | None:
        """Return a keeper for an archive, or None if the archive is off.

        Args:
            archive: as the settings name it; None if they turn it off.
            settings: the kind of archive, and the model.
            about: what the judge says of itself.

        Raises:
            EngineError: the model's configuration or tokenizer cannot be read.
        """
        if archive is None:
            return None
        judging, template = await asyncio.to_thread(judging_of, settings.engine, about)
        in_topic = settings.policies.archive == "topic"
        return cls(archive, judging, template, TOPIC_RULES_BYTES_MAX if in_topic else None)

    async def keep(self, policies: PolicySet) -> None:
        """Return once all of these are stored. Raises as :meth:`PolicyArchive.keep`."""
        entries = await asyncio.to_thread(self._entries, policies.policies.values())
        new = {name: content for name, content in entries.items() if name not in self._kept}
        if new:
            await self._archive.keep(new)
            self._kept.update(new)
            _log.info("policies_archived", count=len(new))

    def _entries(self, policies: Iterable[Policy]) -> dict[EntryName, bytes]:
        return dict(
            write_entry(
                policy, self._judging, self._template, rules_bytes_max=self._rules_bytes_max
            )
            for policy in policies
        )


def judging_of(
    settings: EngineSettings, about: Mapping[str, str]
) -> tuple[Judging, Template | None]:
    """Return what prompts are made of besides policies, and the template that renders them; None without a model.

    Args:
        settings: the model. Its configuration and tokenizer are read.
        about: what the judge says of itself. It can be another judge than the settings name.

    Raises:
        EngineError: the model's configuration or tokenizer is missing or invalid.
    """
    engine = about.get("engine", "")
    if engine != "vllm":
        return Judging(engine, about.get("model", engine), None, None, settings.prompt_date), None
    from stream_guard.judging.families.model_files import tokenizer_sha256
    from stream_guard.judging.families.registry import family_kind

    kind, digest = family_kind(settings), tokenizer_sha256(settings)
    judging = Judging(
        "vllm", settings.model, settings.revision, digest, settings.prompt_date, kind.name
    )
    return judging, kind.template


class FolderArchive:
    """A :class:`PolicyArchive` of files, ``<policy's digest>/<entry's digest>.json``."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def keep(self, entries: Mapping[EntryName, bytes]) -> None:
        """See :meth:`PolicyArchive.keep`."""
        await asyncio.to_thread(self._keep, entries)

    async def add_note(self, key: str, content: bytes) -> None:
        """See :meth:`PolicyArchive.add_note`."""
        await asyncio.to_thread(self._write_all, {self._path / f"{key}.json": content})

    def _keep(self, entries: Mapping[EntryName, bytes]) -> None:
        self._write_all({self._file(name): content for name, content in entries.items()})

    def _write_all(self, contents: Mapping[Path, bytes]) -> None:
        try:
            for file, content in contents.items():
                self._write(file, content)
        except OSError as error:
            message = (
                f"policies.archive_path (STREAM_GUARD_POLICIES__ARCHIVE_PATH): {self._path} cannot be written "
                f"({error.strerror}), so no policy can go live; mount a volume that this user may write, or set "
                'policies.archive to "topic" or "off"'
            )
            raise PolicyError(message) from error

    def _write(self, file: Path, content: bytes) -> None:
        with contextlib.suppress(FileNotFoundError):
            if file.read_bytes() != content:
                message = (
                    f"{file}: was altered after it was archived; move it away and keep it as evidence, then Stream "
                    "Guard archives the policy again"
                )
                raise PolicyError(message)
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        # Several replicas may share the volume.
        write_whole(file, content, 0o444)

    def _file(self, name: EntryName) -> Path:
        return self._path / name.policy_sha256 / f"{name.entry_sha256}.json"

    async def load(self, wanted: frozenset[str] | None = None) -> list[Kept]:
        """See :meth:`PolicyArchive.load`."""
        return await asyncio.to_thread(lambda: list(self._load(wanted)))

    def _load(self, wanted: frozenset[str] | None) -> Iterator[Kept]:
        if not self._path.is_dir():
            message = f"policies.archive_path: {self._path} is not a folder; name the folder that the service writes"
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

    async def notes(self, prefix: str) -> list[Note]:
        """See :meth:`PolicyArchive.notes`."""
        return await asyncio.to_thread(self._notes, prefix)

    def _notes(self, prefix: str) -> list[Note]:
        try:
            folder = self._path / prefix
            return [
                Note(
                    f"{prefix}{file.relative_to(folder).with_suffix('').as_posix()}",
                    file.read_bytes(),
                    str(file),
                )
                for file in sorted(folder.rglob("*.json"))
            ]
        except OSError as error:
            message = f"policies.archive_path: {self._path} cannot be read ({error.strerror})"
            raise EvidenceError(message) from error
