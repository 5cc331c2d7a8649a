"""The rows of the page Audit, out of records of topics that others can write. Every text is cut. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import orjson

from stream_guard.records.decision import parse_decision
from stream_guard.stream.breaker.entries import ResetEntry, TripEntry

if TYPE_CHECKING:
    from stream_guard.core.kafka_types import Record
    from stream_guard.stream.breaker.entries import Entry

__all__ = ["Decided", "Said", "Tripped", "decided_of"]

_CHARACTERS_MAX: Final = 2_000
"""Of each text, as of a decision's reason."""


class Decided(NamedTuple):
    """One decision.

    Attributes:
        at_ms: when, Unix time in ms.
        who, role: the person.
        kind: ``review``, ``appeal``, ``retraction``, ``expiry`` or ``breaker_reset``.
        policy: the policy's id; for a reset of a breaker, the policy in its scope, or empty.
        content: the content's id; empty for a reset of a breaker.
        decision: ``violates``, ``safe`` or empty.
        category, action: of the outcome, or empty; for a reset, the action that it names.
        reason: the person's words, or empty.
        id: of the decision.
    """

    at_ms: int
    who: str
    role: str
    kind: str
    policy: str
    content: str
    decision: str
    category: str
    action: str
    reason: str
    id: str


def decided_of(record: Record) -> Decided:
    """Return the decision in a record. Raises RecordError as :func:`parse_decision`."""
    decision = parse_decision(record.key, record.value, record.headers)
    about, outcome, breaker = decision.about, decision.outcome, decision.breaker
    policy = about.policy.id if about else (breaker.policy or "") if breaker else ""
    action = outcome.action if outcome else (breaker.action or "") if breaker else ""
    return Decided(
        decision.decided_at,
        decision.decided_by.id,
        decision.decided_by.role,
        decision.kind,
        policy,
        about.content.id[:_CHARACTERS_MAX] if about else "",
        outcome.decision if outcome else "",
        (outcome.category or "") if outcome else "",
        action,
        (decision.reason or "")[:_CHARACTERS_MAX],
        decision.id,
    )


class Said(NamedTuple):
    """One entry of the review's audit trail.

    Attributes:
        at_ms: when, Unix time in ms.
        who, role: the person.
        what: that the person asked for.
        item: id of the item, or empty.
        allowed: whether the role may do it.
    """

    at_ms: int
    who: str
    role: str
    what: str
    item: str
    allowed: bool

    @classmethod
    def of(cls, value: bytes | None) -> Said | None:
        """Return the entry in the value of a record; None where it is none."""
        try:
            entry = orjson.loads(value or b"")
            texts = [entry["who"], entry["role"], entry["what"], entry["item_id"] or ""]
            at_ms, allowed = entry["at"], entry["allowed"]
        except (ValueError, TypeError, KeyError):
            return None
        fits = isinstance(at_ms, int) and isinstance(allowed, bool)
        if not fits or not all(isinstance(text, str) for text in texts):
            return None
        who, role, what, item = (text[:_CHARACTERS_MAX] for text in texts)
        return cls(at_ms, who, role, what, item, allowed)


class Tripped(NamedTuple):
    """A breaker that opened, or that a person closed.

    Attributes:
        at_ms: when, Unix time in ms.
        closed: whether a person closed it.
        window: over which it counts.
        policy, tenant, action: what it limits; empty for all together.
        cause: which limit was reached; empty for a reset.
        counted, allowed: actions in the window, and the limit; 0 for a reset.
    """

    at_ms: int
    closed: bool
    window: str
    policy: str
    tenant: str
    action: str
    cause: str = ""
    counted: int = 0
    allowed: int = 0

    @classmethod
    def of(cls, entry: Entry) -> Tripped | None:
        """Return the row of an entry; None for one that only counts."""
        # A record of strangers can have anything in the place of a name.
        window, policy, tenant, action = (
            "" if each is None else str(each)[:_CHARACTERS_MAX] for each in entry.scope
        )
        if not isinstance(entry, TripEntry | ResetEntry):
            return None
        row = cls(entry.at_ms, isinstance(entry, ResetEntry), window, policy, tenant, action)
        if isinstance(entry, ResetEntry):
            return row
        cause = entry.cause[:_CHARACTERS_MAX]
        return row._replace(cause=cause, counted=entry.counted, allowed=entry.allowed)
