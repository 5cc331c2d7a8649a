"""Keeps the standing decision of each subject: an index in memory, and the decisions in a temporary database.

The index holds one hash for each subject, so that a post that nobody decided about costs one look into a set. SQLite
keeps the decisions: in memory up to a bound, beyond that in a file that the operating system deletes with the process.
What a start has read is checked when somebody first asks about its subject.
"""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

from stream_guard.core.errors import RecordError
from stream_guard.judging.human.rule import holds
from stream_guard.judging.human.temporary import TemporaryDatabase
from stream_guard.judging.human.unread import Unread, UnreadDecisions
from stream_guard.records.decision import Decision, decision_key, subject_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from stream_guard.policies.policy import Policy
    from stream_guard.records.decision_form import DecisionForm
    from stream_guard.records.post import Post

__all__ = ["Applied", "DecisionTable", "Row", "Unread", "subject_hash"]

Applied: TypeAlias = Literal["stands", "repeated", "late"]
_PARSED_MAX: Final = 1_000
# A decision of the same id stands already, or one of a higher rank does: the row stays.
_APPLY: Final = """
    INSERT INTO decision (key, decided_at, id, value) VALUES (?, ?, ?, ?)
    ON CONFLICT (key) DO UPDATE SET decided_at = excluded.decided_at, id = excluded.id, value = excluded.value
    WHERE (excluded.decided_at, excluded.id) > (decision.decided_at, decision.id)
"""


class Row(NamedTuple):
    """A decision, and value and key of its record; without decision and value, the subject of the key is forgotten."""

    decision: Decision | DecisionForm | None
    value: bytes | None
    key: bytes | None


def subject_hash(policy_id: str, tenant: str | None, content_id: str) -> int:
    """Return what the index holds of a subject; the same in this process only."""
    return hash((policy_id, tenant, content_id))


class DecisionTable:
    """The standing decisions.

    Args:
        memory_bytes_max: of the database's pages in memory.
        read: returns the decision in key, value and time of a record without headers, or raises RecordError where it
            is refused; needed for :meth:`stage`.

    Attributes:
        version: how often the table has changed; a caller that saw the same number need not look again.
    """

    def __init__(
        self,
        memory_bytes_max: int = 64 << 20,
        read: Callable[[bytes, bytes, int], Decision | DecisionForm] | None = None,
    ) -> None:
        self._read = read
        # The empty name is a private database that SQLite writes to a temporary file once its cache is full.
        self._database = sqlite3.connect(
            "", isolation_level=None, check_same_thread=False, factory=TemporaryDatabase
        )
        for statement in (
            # Larger pages: a decision takes some 700 bytes, and splitting pages is most of the cost of loading it.
            "PRAGMA page_size = 32768",
            f"PRAGMA cache_size = -{memory_bytes_max // 1_024}",
            "PRAGMA journal_mode = OFF",
            "PRAGMA synchronous = OFF",
            "CREATE TABLE decision (key BLOB NOT NULL, decided_at INTEGER, id TEXT, value BLOB)",
            "CREATE UNIQUE INDEX by_key ON decision (key)",
        ):
            self._database.execute(statement)
        self._unread = UnreadDecisions(self._database)
        self._index: set[int] = set()
        self._parsed: OrderedDict[bytes, Decision] = OrderedDict()
        self.version = 0
        self._counted = 0, 0

    def __len__(self) -> int:
        """Return the number of subjects that somebody decided about.

        A decision that a start has read, and that will be refused when somebody asks about it, counts until then.
        """
        if self._counted[0] != self.version:  # counting a million takes some 10 ms
            (count,) = self._database.execute("SELECT count(*) FROM decision").fetchone()
            self._counted = self.version, count + self._unread.keys
        return self._counted[1]

    def apply(self, decision: Decision, value: bytes) -> Applied:
        """Take a decision, in any order and any number of times.

        Args:
            decision: of any kind but ``breaker_reset``.
            value: of its record.

        Returns:
            ``stands``: it stands now. ``repeated``: it stood already. ``late``: one of a higher rank stands.
        """
        key = decision_key(decision)
        before = self._rank(key)
        if before is not None and decision.rank <= before:
            return "repeated" if decision.rank == before else "late"
        self.load([Row(decision, value, key)])
        return "stands"

    def load(self, rows: Iterable[Row]) -> None:
        """Take decisions in their order, none of the kind ``breaker_reset``."""
        for row in rows:
            if row.decision is None:
                self.forget(row.key)
                continue
            self._check(row.key)
            self._write(row)
            self.version += 1

    def stage(self, records: Sequence[Unread]) -> None:
        """Take many records in their order, unchecked. Nobody may ask for anything until :meth:`settle` was called.

        May run in another thread while nobody else uses the table; so may :meth:`settle`.
        """
        assert self._read is not None, "a table that reads records is told how"
        self._unread.add(records)
        self._index.update(record.subject for record in records if record.value is not None)
        self.version += 1

    def settle(self) -> None:
        """End a start: of each subject one record is left, which is checked when somebody asks about it."""
        for key in self._unread.settle():
            self._check(key)
        self.version += 1

    def forget(self, key: bytes | None) -> None:
        """Forget the decision of a subject, because its key has a null value now."""
        self._unread.take(key)
        self._delete(key)
        self.version += 1

    def standing(self, key: bytes | None) -> bytes | None:
        """Return the value of the decision that stands for a key; None where there is none."""
        self._check(key)
        row = self._database.execute("SELECT value FROM decision WHERE key = ?", (key,)).fetchone()
        return None if row is None else row[0]

    def _check(self, key: bytes | None) -> None:
        """Check what a start has read of a subject. What stands is the same before and after."""
        for timestamp_ms, value in self._unread.take(key):
            assert self._read is not None, "stage() has looked"
            assert key is not None, "no record without a key is staged"
            if value is None:
                self._delete(key)
                continue
            try:
                self._write(Row(self._read(key, value, timestamp_ms), value, key))
            except RecordError:  # the owner of the partition makes it a dead letter
                self._counted = -1, 0

    def _write(self, row: Row) -> None:
        decision, value, key = row
        about = None if decision is None else decision.about
        assert decision is not None, "it is no row that forgets"
        assert about is not None, "a breaker is no subject"
        self._index.add(subject_hash(about.policy.id, about.content.tenant, about.content.id))
        self._parsed.pop(key or b"", None)
        self._database.execute(_APPLY, (key, decision.decided_at, decision.id, value))

    def _delete(self, key: bytes | None) -> None:
        # Its hash stays in the index: another subject may share it.
        self._database.execute("DELETE FROM decision WHERE key = ?", (key,))
        self._parsed.pop(key or b"", None)

    def find(self, post: Post, policy: Policy, now_ms: int) -> Decision | None:
        """Return the decision that answers a post, by :func:`~stream_guard.judging.human.rule.holds`, or None."""
        if subject_hash(policy.id, post.tenant, post.id) not in self._index:
            return None
        key = subject_key(policy.id, post.tenant, post.id)
        decision = self._parsed.get(key)
        if decision is None:
            value = self.standing(key)
            if value is None:
                return None
            decision = self._parsed[key] = Decision.model_validate_json(value)
            if len(self._parsed) > _PARSED_MAX:
                self._parsed.popitem(last=False)
        return decision if holds(decision, post, policy, now_ms) else None

    def close(self) -> None:
        """Delete the database."""
        self._database.close()

    def _rank(self, key: bytes) -> tuple[int, str] | None:
        self._check(key)
        found: tuple[int, str] | None = self._database.execute(
            "SELECT decided_at, id FROM decision WHERE key = ?", (key,)
        ).fetchone()
        return found
