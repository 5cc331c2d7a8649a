"""Scripts and style sheets, read once. Their addresses name the content of all, so browsers may keep them.

It is the content of all, because a script loads another one by its address beside it.
"""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import Final, NamedTuple

__all__ = ["StaticFile", "StaticFiles"]

_TYPES: Final = {
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}


class StaticFile(NamedTuple):
    """The content of a file, and its type for the header ``Content-Type``."""

    content: bytes
    content_type: str


class StaticFiles:
    """The files of the package's folder ``static``.

    Attributes:
        version: a digest of all of them.
    """

    def __init__(self) -> None:
        self._files: dict[str, StaticFile] = {}
        digest = hashlib.sha256()
        folder = files("stream_guard.console.layout").joinpath("static")
        for file in sorted(folder.iterdir(), key=lambda each: each.name):
            suffix = file.name[file.name.rfind(".") :]
            if suffix in _TYPES:
                content = file.read_bytes()
                digest.update(content)
                self._files[file.name] = StaticFile(content, _TYPES[suffix])
        self.version = digest.hexdigest()[:16]

    def find(self, name: str) -> StaticFile | None:
        """Return a file, or None."""
        return self._files.get(name)

    def address(self, name: str) -> str:
        """Return the address of a file. Raises KeyError where there is none of this name."""
        if name not in self._files:
            raise KeyError(name)
        return f"/static/{self.version}/{name}"
