"""Projects the topics of the human loop into tables.

Theory of operation. The state is a function of the set of records, never of the order in which topics were read: each
row is chosen from its duplicates by a rule, and an item's state is computed from all decisions and changes about it.
So a database that lived through everything equals one that is rebuilt, as long as the topics still have the records.
Rows and positions are written in one transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import orjson
from sqlalchemy import and_, func, or_, select

from stream_guard.core.errors import RecordError
from stream_guard.offline.review.standing import UNDO, standing
from stream_guard.offline.review.store import PROJECTED, changes, decisions, items, positions
from stream_guard.records.decision import decision_key, parse_decision, subject_key
from stream_guard.records.review_item import parse_review_item
from stream_guard.records.verdict_changes import superseding_id
from stream_guard.records.verdict_event import decode_verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection, RowMapping

    from stream_guard.core.kafka_types import Partition, Record
    from stream_guard.offline.review.store import Store
    from stream_guard.records.decoding.schema import Schemas
    from stream_guard.settings import KafkaSettings

State: TypeAlias = Literal["open", "decided", "withdrawn"]
_AGE_PER_MS: Final = 0.25 / 86_400_000
"""What a millisecond of waiting adds to the priority: a day adds 0.25."""
_LOCAL: Final = frozenset({"lease_reviewer", "lease_token", "lease_until"})


class Projection:
    """Applies records.

    Args:
        store: the database.
        settings: the topics.
    """

    def __init__(self, store: Store, settings: KafkaSettings) -> None:
        self._store = store
        self._apply_one = {
            settings.review_topic: _apply_item,
            settings.decision_topic: _apply_decision,
            settings.verdict_topic: _apply_change,
        }

    def positions(self) -> dict[tuple[str, int], int]:
        """Return the next offset to read, by topic and partition; partitions that were never read are missing."""
        with self._store.transaction() as connection:
            rows = connection.execute(select(positions)).all()
        return {(topic, partition): position for topic, partition, position in rows}

    def apply(
        self,
        records: Sequence[Record],
        read: Mapping[Partition, int],
        schemas: Schemas | None = None,
    ) -> None:
        """Apply records and move the positions, in one transaction.

        Args:
            records: of the three topics, each partition's in offset order. Records below the position are ignored.
            read: the next offset to read of each partition, after these records.
            schemas: of verdicts in Avro, by id; see :func:`.decode_verdict`.
        """
        with self._store.projecting() as connection:
            known = {
                (topic, partition): position
                for topic, partition, position in connection.execute(select(positions))
            }
            touched: set[str] = set()
            for record in records:
                if record.offset >= known.get((record.topic, record.partition), 0):
                    touched |= self._apply_one[record.topic](connection, record, schemas)
            for item_id in sorted(touched):
                _settle(connection, item_id)
            for (topic, partition), position in read.items():
                _move(connection, topic, partition, max(position, known.get((topic, partition), 0)))

    def note_decision(self, record: Record) -> None:
        """Apply a decision that was just written, before it is read; reading it again changes nothing."""
        with self._store.projecting() as connection:
            for item_id in sorted(_apply_decision(connection, record, None)):
                _settle(connection, item_id)

    def dump(self) -> bytes:
        """Return everything that the topics say as JSON lines, sorted: equal states give equal bytes."""
        lines = []
        with self._store.transaction() as connection:
            for table in PROJECTED:
                columns = [column for column in table.c if column.name not in _LOCAL]
                rows = connection.execute(select(*columns))
                lines += [orjson.dumps([table.name, *row]) for row in rows]
        return b"\n".join(sorted(lines)) + b"\n"


def _place(record: Record) -> dict[str, int]:
    return {"place_partition": record.partition, "place_offset": record.offset}


def _apply_item(connection: Connection, record: Record, _: Schemas | None) -> set[str]:
    item = parse_review_item(record.value)
    if item is None:
        return set()
    known = connection.execute(
        select(items.c.place_partition, items.c.place_offset).where(items.c.id == item["id"])
    ).first()
    # Of an item that was written twice, the one at the lowest place counts.
    if known is not None and (record.partition, record.offset) >= (known[0], known[1]):
        return set()
    source, content, policy = item["source"], item["content"], item["policy"]
    row = {
        **_place(record),
        "verdict_id": item["verdict_id"],
        "subject": subject_key(policy["id"], content["tenant"], content["id"]).decode(),
        "policy_id": policy["id"],
        "source_topic": source["topic"],
        "source_partition": source["partition"],
        "source_offset": source["offset"],
        "source_key": source["key"],
        "content_id": content["id"],
        "content_sha256": content["sha256"],
        "rank": item["priority"]["score"] - item["created_at"] * _AGE_PER_MS,
        "reviews": item["reviews"],
        "state": "open",
        "body": _json({name: value for name, value in item.items() if name != "text"}),
        "text": item["text"],
    }
    if known is None:
        connection.execute(items.insert().values(id=item["id"], **row))
    else:
        connection.execute(items.update().where(items.c.id == item["id"]).values(**row))
    return {item["id"]}


def _apply_decision(connection: Connection, record: Record, _: Schemas | None) -> set[str]:
    try:
        decision = parse_decision(record.key, record.value, record.headers)
    except RecordError:
        return set()  # the service writes its dead letter
    about = decision.about
    if about is None:
        return set()
    known = connection.execute(
        select(decisions.c.decided_at, decisions.c.place_partition, decisions.c.place_offset).where(
            decisions.c.id == decision.id
        )
    ).first()
    # Of decisions with one id, the latest counts, and of equal ones the one at the lowest place.
    if known is not None and (decision.decided_at, -record.partition, -record.offset) <= (
        known[0],
        -known[1],
        -known[2],
    ):
        return set()
    row = {
        **_place(record),
        "decided_at": decision.decided_at,
        "verdict_id": about.verdict_id,
        "subject": decision_key(decision).decode(),
        "content_sha256": about.content.sha256,
        "reviewer": decision.decided_by.id,
        "body": _json(decision.model_dump(mode="json")),
    }
    if known is None:
        connection.execute(decisions.insert().values(id=decision.id, **row))
    else:
        connection.execute(decisions.update().where(decisions.c.id == decision.id).values(**row))
    matches = select(items.c.id).where(items.c.subject == row["subject"])
    return set(connection.execute(matches).scalars())


def _apply_change(connection: Connection, record: Record, schemas: Schemas | None) -> set[str]:
    change = _change_of(record, schemas)
    if change is None:
        return set()
    if connection.execute(select(changes.c.id).where(changes.c.id == change["id"])).first():
        return set()
    connection.execute(changes.insert().values(**change))
    about = [
        items.c[name] == change[name]
        for name in ("verdict_id", "content_id", "source_key")
        if change[name] is not None
    ]
    return set(connection.execute(select(items.c.id).where(or_(*about))).scalars())


def _change_of(record: Record, schemas: Schemas | None) -> dict[str, Any] | None:
    """Return what an event of the verdict topic changes; None for a verdict that changes nothing."""
    try:
        verdict = decode_verdict(record.value or b"", schemas)
        if str(verdict.get("decision_id") or "").startswith(UNDO):
            return None  # the decision is taken back, and the item is open again
        row: dict[str, Any] = {"id": verdict["id"], "content_id": None, "source_key": None}
        if verdict.get("supersedes") is not None:
            row |= {"kind": "superseded", "verdict_id": verdict["supersedes"]}
        elif verdict.get("expired") is not None:
            row |= {"kind": "expired", "verdict_id": verdict["expired"]}
        elif verdict.get("retracts") is not None:
            gone = verdict["retracts"]
            row |= {"kind": "retracted", "verdict_id": gone["verdict_id"]}
            if gone["verdict_id"] is None and gone["cause"] == "deleted":
                row |= {"content_id": gone["content_id"], "source_key": gone["key"]}
        else:
            return None
        source = verdict["source"]
        row |= {f"source_{name}": source[name] for name in ("topic", "partition", "offset")}
    except (orjson.JSONDecodeError, RecordError, KeyError, TypeError, AttributeError):
        return None
    named = row["verdict_id"], row["content_id"], row["source_key"]
    return row if any(name is not None for name in named) else None


def decided_by(item: RowMapping | Mapping[str, Any]) -> Any:  # noqa: ANN401 - an SQL expression
    """Return the condition for the decisions about an item: on its verdict, or on its content for any verdict."""
    return or_(
        decisions.c.verdict_id == item["verdict_id"],
        and_(
            decisions.c.verdict_id.is_(None),
            decisions.c.subject == item["subject"],
            or_(
                decisions.c.content_sha256.is_(None),
                decisions.c.content_sha256 == item["content_sha256"],
            ),
        ),
    )


def _settle(connection: Connection, item_id: str) -> None:
    """Compute an item's state from everything about it."""
    item = connection.execute(select(items).where(items.c.id == item_id)).mappings().one()
    people = connection.execute(
        select(func.count(decisions.c.reviewer.distinct())).where(decided_by(item), standing())
    ).scalar_one()
    taken_back = connection.execute(
        select(decisions.c.id).where(decided_by(item), ~standing())
    ).scalars()
    # What such a decision made of the verdict does not count either. After compaction its undoing alone names it.
    ignored = [superseding_id(name.removeprefix(UNDO), item["verdict_id"]) for name in taken_back]
    kinds = set(
        connection.execute(
            select(changes.c.kind).where(
                changes.c.verdict_id == item["verdict_id"], changes.c.id.not_in(ignored)
            )
        ).scalars()
    )
    gone = bool(kinds & {"retracted", "expired"}) or _is_deleted(connection, item)
    state: State = "withdrawn" if gone else "open"
    if people >= item["reviews"] or ("superseded" in kinds and item["reviews"] == 1):
        state = "decided"
    values: dict[str, Any] = {"state": state}
    if gone:
        values["text"] = None
    connection.execute(items.update().where(items.c.id == item_id).values(**values))


def deletions_of(item: RowMapping | Mapping[str, Any]) -> Any:  # noqa: ANN401 - an SQL expression
    """Return the query for deletions of an item's post at its source, after the record that was judged.

    Args:
        item: a row, or the table's columns in a query of items.
    """
    same = [changes.c.content_id == item["content_id"]]
    if item["source_key"] is not None:  # a column never is, and NULL equals nothing
        same.append(changes.c.source_key == item["source_key"])
    later = or_(
        changes.c.source_partition != item["source_partition"],
        changes.c.source_offset > item["source_offset"],
    )
    return select(changes.c.id).where(
        changes.c.kind == "retracted",
        changes.c.verdict_id.is_(None),
        changes.c.source_topic == item["source_topic"],
        or_(*same),
        later,
    )


def _is_deleted(connection: Connection, item: RowMapping) -> bool:
    """Return whether the post was deleted at its source after the record that was judged."""
    return connection.execute(deletions_of(item).limit(1)).first() is not None


def _move(connection: Connection, topic: str, partition: int, position: int) -> None:
    place = and_(positions.c.topic == topic, positions.c.partition == partition)
    moved = connection.execute(positions.update().where(place).values(position=position))
    if not moved.rowcount:
        connection.execute(
            positions.insert().values(topic=topic, partition=partition, position=position)
        )


def _json(document: Any) -> str:  # noqa: ANN401 - any JSON value
    return orjson.dumps(document, option=orjson.OPT_SORT_KEYS).decode()
