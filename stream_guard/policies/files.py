"""Opens the files of a policies folder: regular files inside that folder, up to a size, without blocking."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final

from stream_guard.core.errors import PolicyError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_policy_file"]

_SWAPS_MAX: Final = 3
"""How often a link is resolved again, where its target disappears in between (the swap of a ConfigMap)."""
_KINDS: Final = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a named pipe (FIFO)"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def read_policy_file(path: Path, root: Path, bytes_max: int) -> bytes | None:
    """Return the bytes of a file of a policies folder, or None where the file is missing.

    Links are followed within ``root`` alone: a link to another place could put any file of the host into prompts and
    archives. Opening a named pipe would block, so the kind of the file is checked first.

    Args:
        path: the file.
        root: the policies folder, which may itself be a link.
        bytes_max: the largest size, in bytes; checked before reading.

    Raises:
        PolicyError: the file is outside the folder, no regular file, too large or unreadable.
    """
    try:
        for attempt in range(_SWAPS_MAX):
            real = os.path.realpath(path, strict=True)
            _check_inside(path, real, root)
            try:
                return _read_regular(path, real, bytes_max)
            except FileNotFoundError:
                if attempt == _SWAPS_MAX - 1:
                    raise
    except FileNotFoundError:
        return None
    except OSError as error:
        message = f"{path}: cannot be read ({error.strerror}); make it a readable file"
        raise PolicyError(message) from error
    return None


def _check_inside(path: Path, real: str, root: Path) -> None:
    folder = os.path.realpath(root)
    if os.path.commonpath((folder, real)) != folder:
        message = (
            f"{path}: a link to {real}, which is outside the policies folder {folder}; "
            "replace the link with a copy of the file"
        )
        raise PolicyError(message)


def _read_regular(path: Path, real: str, bytes_max: int) -> bytes:
    _check_kind(path, os.lstat(real), bytes_max)
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(real, flags), "rb") as file:
        # The file may have been replaced since the first check.
        _check_kind(path, os.fstat(file.fileno()), bytes_max)
        content = file.read(bytes_max + 1)
    if len(content) > bytes_max:
        raise _too_large(path, len(content), bytes_max)
    return content


def _check_kind(path: Path, found: os.stat_result, bytes_max: int) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = next((kind for test, kind in _KINDS if test(found.st_mode)), "no regular file")
        message = f"{path}: {kind}; only regular files are read: replace it with a regular file"
        raise PolicyError(message)
    if found.st_size > bytes_max:
        raise _too_large(path, found.st_size, bytes_max)


def _too_large(path: Path, size_bytes: int, bytes_max: int) -> PolicyError:
    return PolicyError(f"{path}: {size_bytes:,} bytes, over {bytes_max:,} bytes; shorten it")
