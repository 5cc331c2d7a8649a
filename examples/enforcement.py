"""An enforcement service: acts once per verdict id, however often a verdict is delivered.

    python examples/enforcement.py "$STREAM_GUARD_KAFKA__BOOTSTRAP_SERVERS" --database enforcement.sqlite

The action and the verdict's id are written in one SQLite transaction: after a crash either both exist or neither. A
repeated verdict finds its id and does nothing. Replace :func:`act` with your platform's action. If that is a call over
the network, pass the verdict's id as its idempotency key.
"""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
import sys
from typing import TYPE_CHECKING

from stream_guard.client import VerdictConsumer

if TYPE_CHECKING:
    from stream_guard.client import Verdict

SCHEMA = """
CREATE TABLE IF NOT EXISTS handled (verdict_id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS actions (
    number INTEGER PRIMARY KEY,
    verdict_id TEXT NOT NULL,
    supersedes TEXT,
    content_id TEXT NOT NULL,
    policy TEXT NOT NULL,
    category TEXT,
    action TEXT NOT NULL
);
"""


def act(database: sqlite3.Connection, verdict: Verdict) -> None:
    """Take down, label, warn ... here: write down what would be done."""
    database.execute(
        "INSERT INTO actions (verdict_id, supersedes, content_id, policy, category, action)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (
            verdict.id,
            verdict.supersedes,
            verdict.content.id,
            verdict.policy.id,
            verdict.policy.category,
            verdict.action,
        ),
    )


def handle(database: sqlite3.Connection, verdict: Verdict) -> bool:
    """Act on a verdict unless that was done before; return whether anything was done."""
    with database:  # one transaction: commits at its end, rolls back on an exception
        new = database.execute("INSERT OR IGNORE INTO handled VALUES (?)", (verdict.id,)).rowcount
        if new and verdict.action != "none":
            act(database, verdict)
    return bool(new)


async def enforce(bootstrap_servers: str, topic: str, group_id: str, path: str) -> None:
    """Act on violating verdicts until stopped."""
    database = sqlite3.connect(path)
    database.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;" + SCHEMA)
    consumer = VerdictConsumer(
        bootstrap_servers, group_id=group_id, topic=topic, decisions=["violates"]
    )
    async with consumer as verdicts:
        async for verdict in verdicts:
            if handle(database, verdict):
                print(f"{verdict.action} {verdict.content.id}", flush=True)


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bootstrap_servers", metavar="HOST:PORT")
    parser.add_argument("--topic", default="stream-guard.verdicts")
    parser.add_argument("--group", default="enforcement")
    parser.add_argument("--database", default="enforcement.sqlite", metavar="FILE")
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
