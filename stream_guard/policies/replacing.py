"""Replaces the files of a live policy in one step, so that no reader ever finds half of two versions.

Theory of operation. Everything is written beside the policy first, in a folder whose name begins with ``.``, which no
service reads. Then one call of the operating system makes it live. Where one file changes, this is a rename. Else it is
an exchange of the two folders: ``renameat2`` with ``RENAME_EXCHANGE``, Linux 3.15; see its manual page. A process that
is killed before or after that call leaves a whole version.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from stream_guard.core.errors import PolicyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["locked", "staged"]

_AT_FDCWD: Final = -100
_RENAME_EXCHANGE: Final = 2


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other promotions on this machine out of a folder of policies.

    Raises:
        PolicyError: another process promotes now, or the folder cannot be opened.
    """
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise PolicyError(f"{path}: cannot be opened ({error.strerror})") from error
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            message = f"{path}: another process promotes a policy now; run the command again"
            raise PolicyError(message) from error
        except OSError as error:
            raise PolicyError(f"{path}: cannot be locked ({error.strerror})") from error
        yield
    finally:
        os.close(folder)


@contextlib.contextmanager
def staged(
    live: Path, old: Mapping[str, bytes], new: Mapping[str, bytes]
) -> Iterator[Callable[[], None]]:
    """Write the new files of a policy beside it, and yield the function that makes them live.

    Nothing is live before that function is called. Files of the folder that are in neither version stay.

    Args:
        live: the policy's folder.
        old: bytes of the files that are live, by name.
        new: bytes of the files to make live, by name; others of ``old`` are removed.

    Raises:
        PolicyError: the folder is a link, or cannot be replaced.
    """
    if live.is_symlink():
        message = f"{live}: is a link, so that something else manages it; promote where its target is written"
        raise PolicyError(message)
    changed = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    staging: Path | None = None
    try:
        staging = Path(tempfile.mkdtemp(prefix=f".{live.name}-", dir=live.parent))
        if len(changed) > 1:
            _try_exchange(staging)
            shutil.copytree(live, staging / "new", symlinks=True)
        else:
            (staging / "new").mkdir()
        for name in changed:
            _write(live / name, staging / "new" / name, new.get(name))
        whole = len(changed) > 1
        yield lambda: _make_live(live, staging / "new", None if whole else changed)
    except OSError as error:
        message = (
            f"{live}: cannot be replaced in one step ({error.strerror}); make it writable for this user, on a file "
            "system that can exchange two folders (most local ones can)"
        )
        raise PolicyError(message) from error
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)


def _write(live: Path, staged_file: Path, content: bytes | None) -> None:
    """Write one file, with the permissions of the file that it replaces."""
    staged_file.unlink(missing_ok=True)
    if content is None:
        return
    with staged_file.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    with contextlib.suppress(FileNotFoundError):
        shutil.copymode(live, staged_file)


def _make_live(live: Path, new: Path, names: list[str] | None) -> None:
    """Exchange the folders, or replace the only changed file."""
    if names is None:
        _exchange(new, live)
    for name in names or ():
        if (new / name).exists():
            (new / name).replace(live / name)
        else:
            (live / name).unlink()
    for folder in (live, live.parent):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _try_exchange(staging: Path) -> None:
    """Raise OSError where this file system cannot exchange folders, before anything depends on it."""
    pair = staging / "one", staging / "other"
    for folder in pair:
        folder.mkdir()
    _exchange(*pair)


def _exchange(one: Path, other: Path) -> None:
    """Exchange two folders in one step. Raises OSError."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        raise OSError(0, "the C library has no renameat2")
    failed = rename(
        _AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), ctypes.c_uint(_RENAME_EXCHANGE)
    )
    if failed:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
