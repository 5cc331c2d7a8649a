"""Makes a person's decision about a review item, and writes it to the decisions topic, which is the truth."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from stream_guard.core.errors import SettingsError
from stream_guard.offline.choice import Choice, Section, decision_of
from stream_guard.records.decision import encode_decision

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from stream_guard.offline.review.projection import Projection
    from stream_guard.offline.review.queue import Lease, Person, ReviewQueue
    from stream_guard.records.decision import Decision

__all__ = [
    "Choice",
    "NotYetRead",
    "Section",
    "SectionOf",
    "decide",
    "make_decision",
    "no_section",
]

_NOT_READ_YET: Final = (2**31 - 1, 2**62)
"""The place of a decision that was written and not read: above every real place, which then replaces it."""


SectionOf: TypeAlias = "Callable[[Mapping[str, Any], str | None], Section]"
"""Returns the section of an item's policy (its id and digest) for a category's code, or for the whole text."""


def no_section(_policy: Mapping[str, Any], _code: str | None) -> Section:
    """Return no section: nobody knows the policy's text."""
    return Section(None, None)


def make_decision(
    item: Mapping[str, Any],
    choice: Choice,
    person: Person,
    lease: Lease,
    now_ms: int,
    section_of: SectionOf = no_section,
) -> Decision:
    """Return the decision. Its id comes from the lease, so a repeat under the same lease is the same decision.

    Args:
        item: that is decided.
        choice: what the person chose.
        person: who decides.
        lease: of this person.
        now_ms: Unix time in ms.
        section_of: finds what the decision rests on.

    Raises:
        SettingsError: the choice is incomplete, or a field is invalid.
    """
    outcome = None
    if choice.kind != "retraction":
        outcome = _outcome(item, choice)
    elif choice.decision is not None:
        raise SettingsError(
            "a retraction takes a verdict back and decides nothing; leave the decision out"
        )
    section = section_of(item["policy"], choice.category or item["verdict"]["category"])
    about = {
        "verdict_id": item["verdict_id"],
        "content": item["content"],
        "policy": {**item["policy"], "section": section.code, "section_sha256": section.sha256},
        "source": item["source"],
    }
    return decision_of(
        choice,
        decision_id=f"review-{lease.token}",
        by=person.id,
        role=person.role,
        about=about,
        outcome=outcome,
        now_ms=now_ms,
    )


def _outcome(item: Mapping[str, Any], choice: Choice) -> dict[str, Any]:
    verdict = item["verdict"]
    if choice.decision is None:
        raise SettingsError("a decision is missing: say violates or safe")
    same = choice.decision == verdict["decision"]
    category = choice.category if choice.category or not same else verdict["category"]
    same = same and category == verdict["category"]
    action = choice.action
    if action is None and choice.decision == "safe":
        action = "none"
    elif action is None and same and verdict["action"] not in ("none", "review"):
        action = verdict["action"]
    if action is None:
        raise SettingsError(
            "an action is missing: the verdict recommends none that fits a violation; name one, such as remove"
        )
    return {
        "decision": choice.decision,
        "category": category,
        "severity": verdict["severity"] if same else None,
        "labels": tuple(verdict["labels"]) if same else (),
        "rule_ids": tuple(verdict["rule_ids"]) if same else (),
        "action": action,
    }


class NotYetRead(NamedTuple):
    """A decision's record that was written, before it is read."""

    topic: str
    key: bytes
    value: bytes
    headers: Sequence[tuple[str, bytes]]
    partition: int = _NOT_READ_YET[0]
    offset: int = _NOT_READ_YET[1]
    timestamp: int = -1


async def decide(
    queue: ReviewQueue,
    projection: Projection,
    write: Callable[[Decision], Awaitable[None]],
    *,
    item_id: str,
    choice: Choice,
    person: Person,
    now_ms: int,
    section_of: SectionOf = no_section,
) -> Decision:
    """Write a person's decision about the item that this person has leased, and end the lease.

    Args:
        queue: with the lease.
        projection: of the same database.
        write: writes a decision, and returns once the broker has it.
        item_id: the leased item.
        choice: what is decided.
        person: who decides.
        now_ms: Unix time in ms.
        section_of: finds what the decision rests on; runs in a thread.

    Raises:
        UnknownItemError: there is no such item.
        NotLeasedError: this person has not leased it, or the lease has expired.
        SettingsError: the choice is incomplete or invalid.
        BrokerError: the decision was not written; the lease stays.
    """
    item, lease = await asyncio.to_thread(queue.held, item_id, person, now_ms)
    decision = await asyncio.to_thread(
        make_decision, item, choice, person, lease, now_ms, section_of
    )
    await write(decision)
    key, value, headers = encode_decision(decision)
    await asyncio.to_thread(projection.note_decision, NotYetRead("", key, value, headers))
    await asyncio.to_thread(queue.release, item_id, person, now_ms, "decide")
    return decision
