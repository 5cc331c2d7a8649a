"""What reviewers do with the projection: list, look, lease, release. Every access by a person is in the audit trail.

A lease gives one item to one person for a while. Two people never hold the same item, because the lease is a part of
the item's row and is taken in a transaction that locks it. Times come from the caller, as Unix time in ms.
"""

from __future__ import annotations

import hashlib
import itertools
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson
from sqlalchemy import and_, exists, func, or_, select

from stream_guard.core.errors import NotLeasedError, SettingsError, UnknownItemError
from stream_guard.offline.review.projection import decided_by, deletions_of
from stream_guard.offline.review.standing import standing
from stream_guard.offline.review.store import audit, decisions, escalations, items
from stream_guard.offline.review.tokens import ROLES, Person

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import Connection, RowMapping, Select

    from stream_guard.offline.review.store import Store

__all__ = ["ROLES", "Lease", "Person", "ReviewQueue"]


class Lease(NamedTuple):
    """One item, for one person, until a time (Unix time in ms); ``token`` names this lease."""

    item_id: str
    token: str
    until: int


class ReviewQueue:
    """The queue.

    Args:
        store: the database.
        lease_ms: how long a lease lasts, in ms.
    """

    def __init__(self, store: Store, *, lease_ms: int = 600_000) -> None:
        self._store = store
        self._lease_ms = lease_ms

    def listed(
        self, *, state: str = "open", policy: str | None = None, why: str | None = None, limit: int
    ) -> list[dict[str, Any]]:
        """Return items in their order in the queue: by priority and age, highest first."""
        wanted = select(items).where(items.c.state == state)
        if policy is not None:
            wanted = wanted.where(items.c.policy_id == policy)
        found: list[dict[str, Any]] = []
        with self._store.transaction() as connection:
            for row in connection.execute(wanted.order_by(*_ORDER)).mappings():
                item = _item(row)
                if why is None or why in item["why"]:
                    found.append(item)
                if len(found) >= limit:
                    break
        return found

    def policies(self) -> list[str]:
        """Return the ids of the policies that items are of."""
        with self._store.transaction() as connection:
            return sorted(connection.execute(select(items.c.policy_id).distinct()).scalars())

    def show(self, item_id: str, person: Person, now_ms: int) -> dict[str, Any]:
        """Return an item, with its decisions where this person may see them: not before a blind review is over.

        Raises:
            UnknownItemError: there is no such item.
        """
        with self._store.transaction() as connection:
            row = _require(connection, item_id)
            _note(connection, now_ms, person, "show", item_id)
            made = connection.execute(
                select(decisions.c.body)
                .where(decided_by(row))
                .order_by(decisions.c.decided_at, decisions.c.id)
            ).scalars()
            opened = row["state"] != "open" or person.role == "lead"
            all_made = [orjson.loads(body) for body in made]
            seen = [d for d in all_made if opened or d["decided_by"]["id"] == person.id]
        return {**_item(row), "text": row["text"], "decisions": seen}

    def claim(
        self,
        person: Person,
        now_ms: int,
        *,
        item_id: str | None = None,
        policy: str | None = None,
        fits: Callable[[Mapping[str, Any]], bool] | None = None,
    ) -> Lease | None:
        """Lease an item, or the first that this person may decide; None where there is none.

        A person who holds a lease and asks for any item gets another one. A lead may lease a decided item by its id.

        Args:
            person: who asks.
            now_ms: Unix time in ms.
            item_id: of the item; None for the first in the queue.
            policy: only items of this policy.
            fits: of several items, the first that this accepts is leased.

        Raises:
            UnknownItemError: there is no item ``item_id``.
            NotLeasedError: the item is leased, is not open, or this person has decided about it.
            SettingsError: the role may not decide.
        """
        if person.role == "read-only":
            raise SettingsError("role read-only: may not lease items; use a reviewer's token")
        own = exists().where(
            decisions.c.verdict_id == items.c.verdict_id,
            decisions.c.reviewer == person.id,
            standing(),
        )
        free = or_(
            items.c.lease_until.is_(None),
            items.c.lease_until <= now_ms,
            *([items.c.lease_reviewer == person.id] if item_id is not None else ()),
        )
        wanted = select(items.c.id).where(free)
        if item_id is None or person.role != "lead":
            wanted = wanted.where(items.c.state == "open", ~own)
        if item_id is not None:
            wanted = wanted.where(items.c.id == item_id)
        if policy is not None:
            wanted = wanted.where(items.c.policy_id == policy)
        with self._store.transaction() as connection:
            found = _first(connection, wanted, fits)
            if found is None:
                if item_id is None:
                    return None
                _require(connection, item_id)
                message = f"item {item_id}: leased to somebody, not open, or decided by you before"
                raise NotLeasedError(message)
            lease = Lease(found, _token(found, person.id, now_ms), now_ms + self._lease_ms)
            connection.execute(
                items.update()
                .where(items.c.id == found)
                .values(lease_reviewer=person.id, lease_token=lease.token, lease_until=lease.until)
            )
            _note(connection, now_ms, person, "lease", found)
        return lease

    def holding(self, person: Person, now_ms: int) -> Lease | None:
        """Return the lease that a person took last and still holds; None where there is none."""
        wanted = (
            select(items.c.id, items.c.lease_token, items.c.lease_until)
            .where(items.c.lease_reviewer == person.id, items.c.lease_until > now_ms)
            .order_by(items.c.lease_until.desc(), items.c.id)
        )
        with self._store.transaction() as connection:
            row = connection.execute(wanted.limit(1)).first()
        return None if row is None else Lease(*row)

    def escalate(self, item_id: str, person: Person, now_ms: int, reason: str | None) -> None:
        """Leave an item to a lead, and end this person's lease.

        Raises:
            UnknownItemError: there is no such item.
            NotLeasedError: this person has not leased it, or the lease has expired.
        """
        self.held(item_id, person, now_ms)
        with self._store.transaction() as connection:
            connection.execute(escalations.delete().where(escalations.c.item_id == item_id))
            connection.execute(
                escalations.insert().values(
                    item_id=item_id, at=now_ms, who=person.id, reason=reason
                )
            )
        self.release(item_id, person, now_ms, "escalate")

    def escalated(self) -> dict[str, dict[str, Any]]:
        """Return who left which open item to a lead, when, and why: by the item's id, oldest first."""
        wanted = (
            select(escalations)
            .join(items, items.c.id == escalations.c.item_id)
            .where(items.c.state == "open")
            .order_by(escalations.c.at, escalations.c.item_id)
        )
        with self._store.transaction() as connection:
            rows = connection.execute(wanted).mappings()
            return {str(row["item_id"]): dict(row) for row in rows}

    def work(self, person: Person, since_ms: int) -> list[tuple[int, str, dict[str, Any] | None]]:
        """Return what a person did since a time, oldest first: when, what, and with which item."""
        wanted = (
            select(audit.c.at, audit.c.what, audit.c.item_id, items.c.body)
            .outerjoin(items, items.c.id == audit.c.item_id)
            .where(audit.c.who == person.id, audit.c.at >= since_ms)
            .order_by(audit.c.n)
        )
        with self._store.transaction() as connection:
            rows = connection.execute(wanted).all()
        return [
            (at, what, None if body is None else orjson.loads(body)) for at, what, _, body in rows
        ]

    def held(self, item_id: str, person: Person, now_ms: int) -> tuple[dict[str, Any], Lease]:
        """Return an item that this person has leased, and the lease.

        Raises:
            UnknownItemError: there is no such item.
            NotLeasedError: the lease has expired or is somebody else's.
        """
        with self._store.transaction() as connection:
            row = _require(connection, item_id)
        if row["lease_reviewer"] != person.id or (row["lease_until"] or 0) <= now_ms:
            message = f"item {item_id}: you have no lease on it, or it has expired; lease it again"
            raise NotLeasedError(message)
        return _item(row), Lease(item_id, row["lease_token"], row["lease_until"])

    def release(self, item_id: str, person: Person, now_ms: int, what: str = "release") -> None:
        """End this person's lease, if it still holds; ``what`` is written to the audit trail."""
        with self._store.transaction() as connection:
            connection.execute(
                items.update()
                .where(and_(items.c.id == item_id, items.c.lease_reviewer == person.id))
                .values(lease_reviewer=None, lease_token=None, lease_until=None)
            )
            _note(connection, now_ms, person, what, item_id)

    def trail(self, *, item_id: str | None = None, limit: int = 1_000) -> list[dict[str, Any]]:
        """Return the audit trail, newest first: who did what with which item, and when."""
        wanted = select(audit).order_by(audit.c.n.desc()).limit(limit)
        if item_id is not None:
            wanted = wanted.where(audit.c.item_id == item_id)
        with self._store.transaction() as connection:
            rows = connection.execute(wanted).mappings()
            return [{str(name): value for name, value in row.items()} for row in rows]

    def counts(self) -> dict[str, int]:
        """Return how many items there are, by state."""
        counted = dict.fromkeys(("open", "decided", "withdrawn"), 0)
        wanted = select(items.c.state, func.count()).group_by(items.c.state)
        with self._store.transaction() as connection:
            for state, number in connection.execute(wanted):
                counted[state] = number
        return counted

    def reviewed(self) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
        """Return each item that people decided about, with its decisions in order; by the items' ids.

        Decisions that were taken back are left out.

        An item also says whether its post was ``deleted`` at the source since.
        """
        with self._store.transaction() as connection:
            by_verdict: dict[str, list[dict[str, Any]]] = {}
            made = (
                select(decisions.c.verdict_id, decisions.c.body)
                .where(standing())
                .order_by(decisions.c.decided_at, decisions.c.id)
            )
            for verdict_id, body in connection.execute(made):
                if verdict_id is not None:
                    by_verdict.setdefault(verdict_id, []).append(orjson.loads(body))
            columns: Any = items.c
            deleted = deletions_of(columns).exists().label("deleted")
            rows = connection.execute(select(items, deleted)).mappings().all()
        found = [
            (
                {**_item(row), "text": row["text"], "deleted": bool(row["deleted"])},
                by_verdict[row["verdict_id"]],
            )
            for row in rows
            if row["verdict_id"] in by_verdict
        ]
        return sorted(found, key=lambda pair: str(pair[0]["id"]))

    def sampled(self) -> list[dict[str, Any]]:
        """Return the items that were drawn to measure quality, by their ids."""
        with self._store.transaction() as connection:
            rows = connection.execute(select(items)).mappings()
            found = [item for item in map(_item, rows) if item["sample_share"]]
        return sorted(found, key=lambda item: str(item["id"]))


_ORDER: Final[Sequence[Any]] = (items.c.rank.desc(), items.c.id)
_CANDIDATES: Final = 100


def _first(
    connection: Connection, wanted: Select[Any], fits: Callable[[Mapping[str, Any]], bool] | None
) -> str | None:
    """Return the id of the first row of a query, locked until the transaction ends; None where there is none."""
    # On PostgreSQL the row is locked, and rows that others lock are left out; on SQLite the whole database is.
    locked = wanted.order_by(*_ORDER).limit(1).with_for_update(skip_locked=True)
    found: Sequence[str]
    if fits is None:
        found = connection.execute(locked).scalars().all()
        return found[0] if found else None
    candidates = wanted.add_columns(items.c.body, items.c.state).order_by(*_ORDER)
    for start in itertools.count(0, _CANDIDATES):
        page = candidates.limit(_CANDIDATES).offset(start)
        rows = connection.execute(page).mappings().all()
        for row in rows:
            if fits(_item(row)):
                found = connection.execute(locked.where(items.c.id == row["id"])).scalars().all()
                if found:
                    return found[0]
        if len(rows) < _CANDIDATES:
            break
    return None


def _token(item_id: str, reviewer: str, now_ms: int) -> str:
    return hashlib.sha256(f"{item_id}\n{now_ms}\n{reviewer}".encode()).hexdigest()[:32]


def _item(row: RowMapping | Mapping[str, Any]) -> dict[str, Any]:
    body: dict[str, Any] = orjson.loads(row["body"])
    return {**body, "state": row["state"]}


def _require(connection: Connection, item_id: str) -> RowMapping:
    row = connection.execute(select(items).where(items.c.id == item_id)).mappings().first()
    if row is None:
        message = f"item {item_id}: there is no such item; stream-guard review list shows them"
        raise UnknownItemError(message)
    return row


def _note(
    connection: Connection, now_ms: int, person: Person, what: str, item_id: str | None
) -> None:
    connection.execute(
        audit.insert().values(
            at=now_ms, who=person.id, role=person.role, what=what, item_id=item_id
        )
    )
