"""Keeps the records of decisions that a start has read and that nobody has asked about, in the order of the topic.

To check a decision takes longer than to read its record, and to find its place in an index longer than to append it. A
start has a million of them, and posts ask about few. So a start appends records, and makes the index when it has all.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator

__all__ = ["Unread", "UnreadDecisions"]

_ROWS: Final = 1_000
_ADD_ONE: Final = "INSERT INTO unread VALUES (?, ?, ?)"
# Faster than one statement for each row, and other threads run meanwhile.
_ADD_MANY: Final = _ADD_ONE + ", (?, ?, ?)" * (_ROWS - 1)


class Unread(NamedTuple):
    """A record of the decisions topic.

    Attributes:
        key: of the record.
        timestamp_ms: of the record.
        value: the decision's JSON, unchecked; None where the subject of the key is forgotten.
        subject: hash of what the value says that it is about, by which it is looked for; any without a value.
    """

    key: bytes
    timestamp_ms: int
    value: bytes | None
    subject: int


class UnreadDecisions:
    """Records by key.

    Args:
        database: where they are kept, in a table of their own.

    Attributes:
        keys: how many there are, once :meth:`settle` has counted them.
    """

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._database.execute(
            "CREATE TABLE unread (key BLOB NOT NULL, timestamp_ms INTEGER, value BLOB)"
        )
        self._forgotten: set[bytes] = set()
        self.keys = 0

    def add(self, records: Iterable[Unread]) -> None:
        """Append records. Nobody may :meth:`take` any until :meth:`settle` was called."""
        rows = [(record.key, record.timestamp_ms, record.value) for record in records]
        self._forgotten.update(key for key, _, value in rows if value is None)
        whole = len(rows) - len(rows) % _ROWS
        self._database.execute("DROP INDEX IF EXISTS unread_by_key")
        self._database.execute("BEGIN")
        for begin in range(0, whole, _ROWS):
            chunk = rows[begin : begin + _ROWS]
            self._database.execute(_ADD_MANY, [*itertools.chain.from_iterable(chunk)])
        self._database.executemany(_ADD_ONE, rows[whole:])
        self._database.execute("COMMIT")

    def settle(self) -> list[bytes]:
        """Make the index; return the keys that have more than a single value."""
        self._database.execute("CREATE INDEX IF NOT EXISTS unread_by_key ON unread (key)")
        several = self._database.execute("SELECT key FROM unread GROUP BY key HAVING count(*) > 1")
        keys = self._forgotten.union(key for (key,) in several)
        self._forgotten.clear()
        (self.keys,) = self._database.execute("SELECT count(DISTINCT key) FROM unread").fetchone()
        return list(keys)

    def take(self, key: bytes | None) -> Iterator[tuple[int, bytes | None]]:
        """Return time and value of a key's records, in their order; they are not unread any more."""
        if not self.keys:
            return iter(())
        found: list[tuple[int, bytes | None]] = self._database.execute(
            "SELECT timestamp_ms, value FROM unread WHERE key = ? ORDER BY rowid", (key,)
        ).fetchall()
        if found:
            self._database.execute("DELETE FROM unread WHERE key = ?", (key,))
            self.keys -= 1
        return iter(found)
