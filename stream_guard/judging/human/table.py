"""Keeps the standing decision of each subject: an index in memory, and the decisions in a temporary database.

The index holds one hash for each subject, so that a post that nobody decided about costs one look into a set. SQLite
keeps the decisions: in memory up to a bound, beyond that in a file that the operating system deletes with the process.
"""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

from stream_guard.judging.human.rule import holds
from stream_guard.records.decision import Decision, decision_key, subject_key

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stream_guard.policies.policy import Policy
    from stream_guard.records.post import Post

__all__ = ["Applied", "DecisionTable", "Row"]

Applied: TypeAlias = Literal["stands", "repeated", "late"]
_PARSED_MAX: Final = 1_000
# A decision of the same id stands already, or one of a higher rank does: the row stays.
_APPLY: Final = """
    INSERT INTO decision (key, decided_at, id, value) VALUES (?, ?, ?, ?)
    ON CONFLICT (key) DO UPDATE SET decided_at = excluded.decided_at, id = excluded.id, value = excluded.value
    WHERE (excluded.decided_at, excluded.id) > (decision.decided_at, decision.id)
"""


class Row(NamedTuple):
    """A decision, and value and key of its record."""

    decision: Decision
    value: bytes
    key: bytes


class DecisionTable:
    """The standing decisions.

    Args:
        memory_bytes_max: of the database's pages in memory.

    Attributes:
        version: how often the table has changed; a caller that saw the same number need not look again.
    """

    def __init__(self, memory_bytes_max: int = 64 << 20) -> None:
        # The empty name is a private database that SQLite writes to a temporary file once its cache is full.
        self._database = sqlite3.connect("", isolation_level=None)
        for statement in (
            f"PRAGMA cache_size = -{memory_bytes_max // 1_024}",
            "PRAGMA journal_mode = OFF",
            "PRAGMA synchronous = OFF",
            "CREATE TABLE decision (key BLOB NOT NULL, decided_at INTEGER, id TEXT, value BLOB)",
            "CREATE UNIQUE INDEX by_key ON decision (key)",
        ):
            self._database.execute(statement)
        self._index: set[int] = set()
        self._parsed: OrderedDict[bytes, Decision] = OrderedDict()
        self.version = 0

    def __len__(self) -> int:
        """Return the number of subjects that somebody decided about."""
        count: int = self._database.execute("SELECT count(*) FROM decision").fetchone()[0]
        return count

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
        """Take many decisions, which are not of the kind ``breaker_reset``; faster than one at a time."""
        added = []
        for decision, value, key in rows:
            about = decision.about
            assert about is not None, "a breaker is no subject"
            content = about.content
            self._index.add(hash((about.policy.id, content.tenant, content.id)))
            self._parsed.pop(key, None)
            added.append((key, decision.decided_at, decision.id, value))
        self._database.execute("BEGIN")
        self._database.executemany(_APPLY, added)
        self._database.execute("COMMIT")
        self.version += 1

    def forget(self, key: bytes | None) -> None:
        """Forget the decision of a subject, because its key has a null value now."""
        # Its hash stays in the index: another subject may share it.
        self._database.execute("DELETE FROM decision WHERE key = ?", (key,))
        self._parsed.pop(key or b"", None)
        self.version += 1

    def standing(self, key: bytes | None) -> bytes | None:
        """Return the value of the decision that stands for a key; None where there is none."""
        row = self._database.execute("SELECT value FROM decision WHERE key = ?", (key,)).fetchone()
        return None if row is None else row[0]

    def find(self, post: Post, policy: Policy, now_ms: int) -> Decision | None:
        """Return the decision that answers a post, by :func:`~stream_guard.judging.human.rule.holds`, or None."""
        if hash((policy.id, post.tenant, post.id)) not in self._index:
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
        found: tuple[int, str] | None = self._database.execute(
            "SELECT decided_at, id FROM decision WHERE key = ?", (key,)
        ).fetchone()
        return found
