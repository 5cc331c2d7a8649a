"""A feeder of a review queue: every verdict that a person should see becomes one open case.

    python examples/review_queue.py "$STREAM_GUARD_KAFKA__BOOTSTRAP_SERVERS" --database reviews.sqlite

A case is about one post under one policy. When a later verdict supersedes an earlier one, an open case takes the
later verdict, and closes if no review is needed any more. A case that a person has closed stays closed.
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
CREATE TABLE IF NOT EXISTS cases (
    subject TEXT PRIMARY KEY,
    verdict_id TEXT NOT NULL,
    content_id TEXT NOT NULL,
    policy TEXT NOT NULL,
    decision TEXT NOT NULL,
    rationale TEXT,
    published_ms INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'open'
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS handled (verdict_id TEXT PRIMARY KEY) WITHOUT ROWID;
"""


def needs_a_person(verdict: Verdict) -> bool:
    """Whether the verdict says so itself, or its policy advises review."""
    return verdict.needs_review or verdict.action == "review"


def feed(database: sqlite3.Connection, verdict: Verdict) -> bool:
    """Open, change or close the case of a verdict's post and policy; a repeat changes nothing.

    Returns:
        Whether this verdict, which was not seen before, is one for a person.
    """
    subject = "/".join(map(str, verdict.subject))
    with database:
        new = database.execute("INSERT OR IGNORE INTO handled VALUES (?)", (verdict.id,)).rowcount
        if not new:
            return False
        row = (
            verdict.id,
            verdict.content.id,
            verdict.policy.id,
            verdict.decision,
            verdict.policy.rationale,
            verdict.timing.published,
        )
        if needs_a_person(verdict):
            database.execute(
                "INSERT INTO cases VALUES (?, ?, ?, ?, ?, ?, ?, 'open') ON CONFLICT (subject)"
                " DO UPDATE SET verdict_id = excluded.verdict_id, decision = excluded.decision,"
                " rationale = excluded.rationale, published_ms = excluded.published_ms"
                " WHERE state = 'open' AND published_ms <= excluded.published_ms",
                (subject, *row),
            )
        else:
            database.execute(
                "UPDATE cases SET state = 'superseded', verdict_id = ? WHERE subject = ?"
                " AND state = 'open' AND published_ms <= ?",
                (verdict.id, subject, verdict.timing.published),
            )
    return needs_a_person(verdict)


async def run(bootstrap_servers: str, topic: str, group_id: str, path: str) -> None:
    """Feed the queue until stopped."""
    database = sqlite3.connect(path)
    database.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;" + SCHEMA)
    async with VerdictConsumer(
        bootstrap_servers, group_id=group_id, topic=topic, decisions=None
    ) as verdicts:
        async for verdict in verdicts:
            if feed(database, verdict):
                print(f"to review: {verdict.content.id} under {verdict.policy.id}", flush=True)


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bootstrap_servers", metavar="HOST:PORT")
    parser.add_argument("--topic", default="stream-guard.verdicts")
    parser.add_argument("--group", default="review-queue")
    parser.add_argument("--database", default="reviews.sqlite", metavar="FILE")
    arguments = parser.parse_args()
    try:
        asyncio.run(
            run(arguments.bootstrap_servers, arguments.topic, arguments.group, arguments.database)
        )
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
