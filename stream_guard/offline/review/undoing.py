"""Takes a person's own decision back, with a record of its own in the decisions topic.

The record is a retraction whose id names the decision: it counts for nobody, and the decision counts no more. So the
item is open again, whatever the order in which both are read. Enforcement undoes the action, as after any retraction.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import orjson
from sqlalchemy import select

from stream_guard.core.errors import NotLeasedError
from stream_guard.offline.review.deciding import NotYetRead
from stream_guard.offline.review.standing import UNDO, standing
from stream_guard.offline.review.store import audit, decisions, items
from stream_guard.records.decision import Decision, encode_decision

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from stream_guard.offline.review.projection import Projection
    from stream_guard.offline.review.store import Store
    from stream_guard.offline.review.tokens import Person

__all__ = ["last_decision", "undo"]


def last_decision(
    store: Store, person: Person, since_ms: int
) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Return the last decision of a person with its item, if it may be taken back.

    Args:
        store: the database.
        person: who decided.
        since_ms: an earlier decision is too old, Unix time in ms.

    Returns:
        The decision and the item; None where there is none, or somebody has decided about the item since.
    """
    own = (
        select(decisions)
        .where(decisions.c.reviewer == person.id, decisions.c.decided_at >= since_ms, standing())
        .order_by(decisions.c.decided_at.desc(), decisions.c.id.desc())
        .limit(1)
    )
    with store.transaction() as connection:
        row = connection.execute(own).mappings().first()
        if row is None:
            return None
        later = select(decisions.c.id).where(
            decisions.c.subject == row["subject"], decisions.c.decided_at > row["decided_at"]
        )
        item = connection.execute(
            select(items).where(items.c.verdict_id == row["verdict_id"])
        ).mappings().first()  # fmt: skip
        if item is None or connection.execute(later.limit(1)).first() is not None:
            return None
        return orjson.loads(row["body"]), {**orjson.loads(item["body"]), "state": item["state"]}


async def undo(
    store: Store,
    projection: Projection,
    write: Callable[[Decision], Awaitable[None]],
    *,
    person: Person,
    now_ms: int,
    undo_ms: int,
) -> str:
    """Take back a person's last decision; return the id of its item, which is open again.

    Args:
        store: the database.
        projection: of the same database.
        write: writes a decision, and returns once the broker has it.
        person: who decided.
        now_ms: Unix time in ms.
        undo_ms: how long after a decision this is possible, in ms.

    Raises:
        NotLeasedError: there is no such decision, it is too old, or somebody has decided since.
        BrokerError: the record was not written.
    """
    found = await asyncio.to_thread(last_decision, store, person, now_ms - undo_ms)
    if found is None:
        raise NotLeasedError(
            "there is no decision of yours that can be taken back: it is too old, or somebody has decided since"
        )
    made, item = found
    document = made | {
        "id": UNDO + made["id"],
        "kind": "retraction",
        # The later decision counts, and the clock may stand still.
        "decided_at": max(now_ms, made["decided_at"] + 1),
        "decided_by": {"id": person.id, "role": person.role},
        "outcome": None,
        "reason": None,
        "valid_until": None,
    }
    decision = Decision.model_validate(document)
    await write(decision)
    key, value, headers = encode_decision(decision)
    await asyncio.to_thread(projection.note_decision, NotYetRead("", key, value, headers))
    await asyncio.to_thread(_note, store, person, now_ms, item["id"])
    item_id: str = item["id"]
    return item_id


def _note(store: Store, person: Person, now_ms: int, item_id: str) -> None:
    with store.transaction() as connection:
        connection.execute(
            audit.insert().values(
                at=now_ms, who=person.id, role=person.role, what="undo", item_id=item_id
            )
        )
