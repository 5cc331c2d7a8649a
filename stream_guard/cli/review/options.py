"""What the commands of ``stream-guard review`` share: their options, and the opened queue."""

from __future__ import annotations

import contextlib
import secrets
import time
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, NamedTuple, TypeAlias

import typer

from stream_guard.cli.options import refuse_unknown
from stream_guard.cli.terminal import run_quietly, show_progress
from stream_guard.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stream_guard.offline.review.projection import Projection
    from stream_guard.offline.review.queue import Person, ReviewQueue
    from stream_guard.offline.review.store import Store
    from stream_guard.records.review_audit import Asked
    from stream_guard.settings import Settings

DatabaseOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--database",
        metavar="FILE|URL",
        help="SQLite file or PostgreSQL URL. Default: the setting review.database.",
    ),
]
OfflineOption: TypeAlias = Annotated[
    bool, typer.Option("--offline", help="Use the database as it is; do not read the topics.")
]
ItemArgument: TypeAlias = Annotated[str, typer.Argument(metavar="ITEM", help="Id of the item.")]
PolicyOption: TypeAlias = Annotated[
    str | None, typer.Option("--policy", metavar="POLICY", help="Only items of this policy.")
]


class StateChoice(StrEnum):
    """What became of an item."""

    open = "open"
    decided = "decided"
    withdrawn = "withdrawn"


class RoleChoice(StrEnum):
    """What a person may do."""

    reviewer = "reviewer"
    lead = "lead"


class Desk(NamedTuple):
    """The opened database, and the settings."""

    settings: Settings
    store: Store
    projection: Projection
    queue: ReviewQueue


def now_ms() -> int:
    """Return the time, Unix time in ms."""
    return time.time_ns() // 1_000_000


def refuse_unknown_policy(desk: Desk, policy: str | None) -> None:
    """Raise SettingsError where neither the database nor the folder of policies has a policy of this id."""
    if policy is None:
        return
    folder = desk.settings.policies.path
    known = {*desk.queue.policies(), *(file.parent.name for file in folder.glob("*/policy.md"))}
    if known:
        refuse_unknown("--policy", policy, sorted(known))


async def record_access(desk: Desk, person: Person, item_id: str, *asked: Asked) -> None:
    """Write what a person asks for to ``kafka.audit_topic``, as ``review serve`` does; nothing where it is not set.

    Raises:
        BrokerError: it was not acknowledged, so nobody may see or decide the item.
    """
    from stream_guard.kafka.audit_writer import AuditWriter
    from stream_guard.records.review_audit import build_audit_entry

    if desk.settings.kafka.audit_topic is None:
        return
    writer = AuditWriter(desk.settings.kafka)
    try:
        for what in asked:
            entry = build_audit_entry(
                secrets.token_hex(16),
                at_ms=now_ms(),
                who=person.id,
                role=person.role,
                what=what,
                item_id=item_id,
                allowed=True,
            )
            await writer.write(entry)
    finally:
        await writer.close()


@contextlib.contextmanager
def open_desk(
    config: Path | None, database: str | None, *, offline: bool, rebuild: bool = False
) -> Iterator[Desk]:
    """Open the database, and bring it up to the end of the topics unless ``offline``."""
    from stream_guard.offline.review.follow import catch_up, topics_of
    from stream_guard.offline.review.projection import Projection
    from stream_guard.offline.review.queue import ReviewQueue
    from stream_guard.offline.review.store import Store

    settings = load_settings(config)
    topics_of(settings.kafka)
    store = Store(database or settings.review.database.get_secret_value())
    try:
        projection = Projection(store, settings.kafka)
        if rebuild:
            store.forget()
        if not offline:
            with show_progress("reading") as progress:
                run_quietly(catch_up(settings, projection, progress))
        queue = ReviewQueue(store, lease_ms=round(settings.review.lease_s * 1_000))
        yield Desk(settings, store, projection, queue)
    finally:
        store.close()
