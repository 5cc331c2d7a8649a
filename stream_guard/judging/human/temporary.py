"""A temporary SQLite database whose errors name the folder that is full and the setting that helps."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING, Any, Final

from stream_guard.core.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["TemporaryDatabase"]

_PRIMARY: Final = 0xFF
"""The bits of SQLite's extended result codes that say what kind of error it is."""
_NO_ROOM: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN})


class TemporaryDatabase(sqlite3.Connection):
    """A connection to a database in memory that goes on in a file of the temporary folder.

    Its statements raise SettingsError where that file cannot be made or cannot grow.
    """

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:  # noqa: ANN401 - as in sqlite3
        """See :meth:`sqlite3.Connection.execute`."""
        with _named():
            return super().execute(sql, parameters)

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> sqlite3.Cursor:
        """See :meth:`sqlite3.Connection.executemany`."""
        with _named():
            return super().executemany(sql, parameters)


@contextlib.contextmanager
def _named() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & _PRIMARY not in _NO_ROOM:
            raise
        message = (
            "decisions.memory_bytes_max (STREAM_GUARD_DECISIONS__MEMORY_BYTES_MAX): there are more decisions than fit "
            f"into memory of this size, and the temporary folder cannot take the rest ({error}); set TMPDIR to a "
            "folder with more room that this user may write, or raise the setting"
        )
        raise SettingsError(message) from error
