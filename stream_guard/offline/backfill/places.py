"""Names files and folders, local ones or by a URI that pyarrow's file systems open; reads and writes them.

A file is written under a temporary name and then renamed, so that a file with its final name is whole.
"""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from stream_guard.core.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["TEMPORARY", "Place", "place_of"]

TEMPORARY: Final = ".tmp-"
"""A file whose name begins so is not finished."""


@dataclass(slots=True, frozen=True)
class Place:
    """A file or folder in one of pyarrow's file systems. It can be sent to another process.

    Attributes:
        system: a ``pyarrow.fs.FileSystem``.
        path: within it.
    """

    system: Any
    path: str

    def __truediv__(self, name: str) -> Place:
        return Place(self.system, f"{self.path.rstrip('/')}/{name}")

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rstrip("/").rsplit("/", 1)[-1]

    @property
    def folder(self) -> Place:
        """The folder that it is in."""
        return Place(self.system, self.path.rstrip("/").rsplit("/", 1)[0])

    def is_file(self) -> bool:
        """Return whether it is a file."""
        from pyarrow.fs import FileType

        return bool(self.system.get_file_info(self.path).type == FileType.File)

    def is_folder(self) -> bool:
        """Return whether it is a folder."""
        from pyarrow.fs import FileType

        return bool(self.system.get_file_info(self.path).type == FileType.Directory)

    def files(self, *, deep: bool = False) -> dict[str, Any]:
        """Return the files in this folder by their names within it, sorted; empty where there is no folder."""
        from pyarrow.fs import FileSelector, FileType

        selector = FileSelector(self.path, recursive=deep, allow_not_found=True)
        root = self.path.rstrip("/") + "/"
        found = {
            info.path.removeprefix(root): info
            for info in self.system.get_file_info(selector)
            if info.type == FileType.File
        }
        return dict(sorted(found.items()))

    def identity(self) -> str:
        """Return a text that changes when the file is written again: its size and its time."""
        info = self.system.get_file_info(self.path)
        return f"{info.size} {info.mtime_ns}"

    def read(self, begin: int = 0, end: int | None = None) -> bytes:
        """Return the file's bytes, or some of them."""
        with self.system.open_input_file(self.path) as file:
            size = (file.size() if end is None else end) - begin
            return bytes(file.read_at(size, begin))

    def write(self, fill: Callable[[Any], None]) -> None:
        """Write the file: whole, or not at all. A file of that name is replaced.

        Args:
            fill: writes its content to a binary stream.
        """
        folder = self.folder
        folder.make()
        temporary = folder / f"{TEMPORARY}{uuid.uuid4().hex[:12]}-{self.name}"
        with self.system.open_output_stream(temporary.path) as stream:
            fill(stream)
        if self.system.type_name == "local":
            # A machine that loses its power afterwards must not leave an empty file with the final name.
            descriptor = os.open(temporary.path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        self.system.move(temporary.path, self.path)

    def write_bytes(self, content: bytes) -> None:
        """Write the file's content: whole, or not at all."""
        self.write(lambda stream: stream.write(content))

    def make(self) -> None:
        """Create the folder and those above it."""
        self.system.create_dir(self.path, recursive=True)

    def delete(self) -> None:
        """Delete the file; do nothing where there is none."""
        if self.is_file():
            self.system.delete_file(self.path)

    def __str__(self) -> str:
        return self.path


def place_of(text: str, option: str) -> Place:
    """Return the place that an option names: a path, or a URI such as ``s3://bucket/folder``.

    Raises:
        SettingsError: the extra is not installed, or no file system opens the URI.
    """
    try:
        from pyarrow.fs import FileSystem, LocalFileSystem
    except ImportError as error:
        raise SettingsError(NOT_INSTALLED) from error
    if "://" not in text:
        return Place(LocalFileSystem(), str(Path(text).absolute()))
    try:
        system, path = FileSystem.from_uri(text)
    except (OSError, ValueError, NotImplementedError) as error:
        message = f"{option} {text}: {error}; name a path, or a URI that pyarrow opens, as s3://bucket/folder"
        raise SettingsError(message) from error
    return Place(system, path)


NOT_INSTALLED: Final = (
    "backfill needs Ray, which is not installed: pip install 'stream-guard[ray]', "
    "beside the extra of the engine"
)
"""The message of an error."""
