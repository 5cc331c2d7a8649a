"""Where the studio listens: a Unix socket that only one user can reach, and a lock that only one studio can hold."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from stream_guard.core.errors import SettingsError

if TYPE_CHECKING:
    from types import TracebackType

    from stream_guard.settings import StudioSettings

__all__ = ["Address", "check_private", "peer_uid", "socket_path"]

_PATH_BYTES_MAX: Final = 107
"""Of a Unix socket's name on Linux: ``sun_path`` in unix(7), without its final NUL."""
_BACKLOG: Final = 16
_CREDENTIALS: Final = struct.Struct("3i")
"""``struct ucred`` in unix(7): process, user, group."""


def socket_path(settings: StudioSettings) -> Path:
    """Return the path of the studio's socket.

    Raises:
        SettingsError: the path is too long for a Unix socket.
    """
    path = settings.socket
    if path is None:
        runtime = os.environ.get("XDG_RUNTIME_DIR")
        folder = Path(runtime, "stream-guard") if runtime else None
        path = (folder or Path(f"/tmp/stream-guard-{os.geteuid()}")) / "studio.sock"  # noqa: S108 - the folder is private, and that is checked
    if len(os.fsencode(path)) > _PATH_BYTES_MAX:
        message = (
            f"studio.socket: {path} has over {_PATH_BYTES_MAX} bytes; set it to a shorter path"
        )
        raise SettingsError(message)
    return path


def check_private(path: Path) -> None:
    """Check that a file or folder belongs to this user, and that nobody else may use it.

    Raises:
        FileNotFoundError: it is missing.
        SettingsError: another user owns it or has rights on it, or it is a link.
    """
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        message = f"studio.socket: {path} is a link; set it to a path without links"
        raise SettingsError(message)
    if found.st_uid != os.geteuid():
        message = (
            f"studio.socket: {path} belongs to user {found.st_uid}, this is user {os.geteuid()}; "
            "set it to a path of this user"
        )
        raise SettingsError(message)
    if found.st_mode & 0o077:
        message = f"studio.socket: other users have rights on {path}; run: chmod go= {path}"
        raise SettingsError(message)


def peer_uid(connection: socket.socket) -> int:
    """Return the user of the process at the other end (``SO_PEERCRED``)."""
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(data)
    return int(uid)


class Address:
    """Holds the studio's place. A context manager that makes the socket, and removes it at the end.

    The lock ends with its process, even after SIGKILL. So the process that holds the lock may remove an old socket.

    Args:
        path: of the socket.

    Raises:
        SettingsError: a studio runs already, or other users have rights on the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None
        self.listener: socket.socket

    def __enter__(self) -> Self:
        folder = self.path.parent
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            check_private(folder)
            self._lock = os.open(
                self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
            self._take_lock(self._lock)
            self.path.unlink(missing_ok=True)
            self.listener = self._listen()
        except OSError as error:
            self._release()
            message = (
                f"studio.socket: {self.path}: {error.strerror or error}; set it to another path"
            )
            raise SettingsError(message) from error
        except SettingsError:
            self._release()
            raise
        return self

    def _take_lock(self, lock: int) -> None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 20, 0).decode("ascii", "replace").strip() or "unknown"
            message = (
                f"a studio runs already (process {holder}, {self.path}); use it or end it, or set "
                "studio.socket to another path"
            )
            raise SettingsError(message) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)

    def _listen(self) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            listener.bind(str(self.path))
        except OSError:
            listener.close()
            raise
        finally:
            os.umask(before)
        listener.listen(_BACKLOG)
        listener.settimeout(0)
        return listener

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.listener.close()
        self.path.unlink(missing_ok=True)
        self._release()
