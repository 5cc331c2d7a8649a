"""An enforcement service that undoes: a person overrules a verdict, a post is deleted, a verdict expires.

    python examples/undoing_enforcement.py "$STREAM_GUARD_KAFKA__BOOTSTRAP_SERVERS" --database undoing.sqlite

Of each content and policy, one action is in force: that of the event with the highest revision. Each event is written
in one SQLite transaction with its id, so a repeated event does nothing. Replace :func:`apply` and :func:`undo` with
your platform's calls, and pass the event's id as the idempotency key.
"""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
import sys
import time
from typing import TYPE_CHECKING

from stream_guard.client import VerdictConsumer

if TYPE_CHECKING:
    from stream_guard.client import Verdict

SCHEMA = """
CREATE TABLE IF NOT EXISTS handled (event_id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS in_force (
    policy TEXT NOT NULL,
    tenant TEXT NOT NULL,
    content_id TEXT NOT NULL,
    topic TEXT NOT NULL,
    key TEXT,
    action TEXT NOT NULL,
    revision INTEGER NOT NULL,
    valid_until INTEGER,
    PRIMARY KEY (policy, tenant, content_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS log (number INTEGER PRIMARY KEY, what TEXT NOT NULL, content_id TEXT NOT NULL);
"""


def apply(database: sqlite3.Connection, action: str, content_id: str) -> None:
    """Take down, label, warn ... here: write down what would be done."""
    database.execute("INSERT INTO log (what, content_id) VALUES (?, ?)", (action, content_id))


def undo(database: sqlite3.Connection, action: str, content_id: str) -> None:
    """Restore, remove the label ... here: write down what would be done."""
    database.execute(
        "INSERT INTO log (what, content_id) VALUES (?, ?)", (f"undo {action}", content_id)
    )


def handle(database: sqlite3.Connection, event: Verdict) -> bool:
    """Handle an event unless that was done before; return whether anything was done."""
    with database:  # one transaction: commits at its end, rolls back on an exception
        new = database.execute("INSERT OR IGNORE INTO handled VALUES (?)", (event.id,)).rowcount
        if not new:
            return False
        if event.retracts is not None and event.retracts.verdict_id is None:
            key, content_id = event.retracts.key, event.retracts.content_id
            release(
                database,
                "topic = ? AND (key = ? OR content_id = ?)",
                event.source.topic,
                key,
                content_id,
            )
            return True
        policy, tenant, content_id = event.content_subject
        subject = (policy, tenant or "", content_id)
        known = database.execute(
            "SELECT action, revision FROM in_force WHERE policy = ? AND tenant = ? AND content_id = ?",
            subject,
        ).fetchone()
        if known is not None and known[1] > event.revision:
            return True  # what is in force was decided later
        if event.event == "verdict" and known is not None and known[0] == event.action:
            release_only_the_row(database, subject)
        else:
            release(database, "policy = ? AND tenant = ? AND content_id = ?", *subject)
            if event.event == "verdict" and event.action not in ("none", "review"):
                apply(database, event.action, content_id)
        action = event.action if event.event == "verdict" else "none"
        database.execute(
            "INSERT INTO in_force VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *subject,
                event.source.topic,
                event.source.key,
                action,
                event.revision,
                event.valid_until,
            ),
        )
    return True


def release_only_the_row(database: sqlite3.Connection, subject: tuple[str, str, str]) -> None:
    """Forget the row of a subject whose action stays as it is."""
    database.execute(
        "DELETE FROM in_force WHERE policy = ? AND tenant = ? AND content_id = ?", subject
    )


def release(database: sqlite3.Connection, condition: str, *values: str | int | None) -> None:
    """Undo the actions in force that meet a condition of ours, and forget them."""
    found = database.execute(
        f"SELECT action, content_id FROM in_force WHERE {condition}",  # noqa: S608 - the condition is a literal above
        values,
    ).fetchall()
    for action, content_id in found:
        if action not in ("none", "review"):
            undo(database, action, content_id)
    database.execute(f"DELETE FROM in_force WHERE {condition}", values)  # noqa: S608 - the same


def expire(database: sqlite3.Connection, now_ms: int) -> None:
    """Undo what has expired by now, Unix time in ms."""
    with database:
        release(database, "valid_until <= ?", now_ms)


async def enforce(bootstrap_servers: str, topic: str, group_id: str, path: str) -> None:
    """Handle events until stopped."""
    database = sqlite3.connect(path)
    database.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;" + SCHEMA)
    consumer = VerdictConsumer(
        bootstrap_servers, group_id=group_id, topic=topic, decisions=["violates"], events=True
    )

    async def sweep() -> None:
        while True:
            expire(database, time.time_ns() // 1_000_000)
            await asyncio.sleep(60)

    sweeping = asyncio.create_task(sweep())
    try:
        async with consumer as events:
            async for event in events:
                if handle(database, event):
                    print(f"{event.event} {event.action} {event.content.id}", flush=True)
    finally:
        sweeping.cancel()


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bootstrap_servers", metavar="HOST:PORT")
    parser.add_argument("--topic", default="stream-guard.verdicts")
    parser.add_argument("--group", default="undoing-enforcement")
    parser.add_argument("--database", default="undoing.sqlite", metavar="FILE")
    arguments = parser.parse_args()
    try:
        asyncio.run(
            enforce(
                arguments.bootstrap_servers, arguments.topic, arguments.group, arguments.database
            )
        )
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
