"""Builds the events that change earlier verdicts: a person's decision, a retraction, an expiry. Pure.

Each has the shape of a verdict, so that a reader of verdicts reads all of them. An event that is no verdict itself has
the decision ``undetermined`` and the action ``none``: a reader that does not know the event does nothing.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

from stream_guard.records.verdict_event import SCHEMA_VERSION, verdict_id

if TYPE_CHECKING:
    from stream_guard.core.kafka_types import Record
    from stream_guard.records.decision import About, Decision

__all__ = [
    "ALL_POLICIES",
    "HUMAN",
    "PERSON",
    "SOURCE",
    "decided_event",
    "deleted_event",
    "superseding_id",
]

HUMAN: Final = "human"
"""The tier of what a person decided."""
PERSON: Final = "person"
"""The model of what a person decided: no name, no pseudonym."""
SOURCE: Final = "source"
"""The tier of a retraction because a post was deleted at its source."""
ALL_POLICIES: Final = "*"
_NO_POLICY_SHA256: Final = hashlib.sha256(b"").hexdigest()


def superseding_id(decision_id: str, superseded: str | None) -> str:
    """Return the id of the event that a decision makes: 32 hex digits (128 bits of SHA-256).

    Args:
        decision_id: of the decision.
        superseded: id of the verdict that it is about; None where it is about a content id alone.
    """
    # A decision's id holds no newline, so the joined form is unambiguous.
    name = f"decision\n{decision_id}\n{superseded or ''}"
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def decided_event(
    decision: Decision,
    about: About,
    record: Record,
    *,
    stands: bool,
    consumed_ms: int,
    published_ms: int,
) -> dict[str, Any]:
    """Return the one event that a decision makes: a superseding verdict, a retraction or an expiry.

    A decision that no longer stands makes an event that changes nothing: even a reader that compares no revisions
    does not act on it.

    Args:
        decision: of any kind but ``breaker_reset``.
        about: of the decision.
        record: the decision's record; the event's source where the decision names no verdict.
        stands: whether no later decision about the same is known.
        consumed_ms: when the record was read, Unix time in ms.
        published_ms: when the event was handed to the producer, Unix time in ms.
    """
    outcome, content = decision.outcome if stands else None, about.content
    changes: dict[str, Any] = {"revision": decision.decided_at, "decision_id": decision.id}
    if not stands:
        pass
    elif outcome is not None:
        if about.verdict_id is not None:
            changes["supersedes"] = about.verdict_id
        if decision.valid_until is not None:
            changes["valid_until"] = decision.valid_until
    elif decision.kind == "expiry" and about.verdict_id is not None:
        changes["expired"] = about.verdict_id
    else:
        key = None if about.source is None else about.source.key
        changes["retracts"] = _retracts(about.verdict_id, content.id, key, "decision")
    return _event(
        event_id=superseding_id(decision.id, about.verdict_id),
        changes=changes,
        outcome={
            "decision": "undetermined" if outcome is None else outcome.decision,
            "action": "none" if outcome is None else outcome.action,
            "labels": () if outcome is None else outcome.labels,
            "category": None if outcome is None else outcome.category,
            "severity": None if outcome is None else outcome.severity,
            "rule_ids": () if outcome is None else outcome.rule_ids,
            "rationale": decision.reason,
        },
        source=_record_source(record) if about.source is None else about.source.model_dump(),
        content={
            "id": content.id,
            "sha256": content.sha256 or _NO_POLICY_SHA256,
            "author": content.author,
            "tenant": content.tenant,
            "language": content.language,
        },
        policy={name: getattr(about.policy, name) for name in ("id", "version", "sha256")},
        tier=(HUMAN, PERSON, decision.kind if stands else "late"),
        timing=(decision.decided_at, consumed_ms, decision.decided_at, published_ms),
    )


def deleted_event(
    record: Record, content_id: str | None, *, consumed_ms: int, published_ms: int
) -> dict[str, Any]:
    """Return the retraction of all verdicts on earlier records of a post that was deleted at its source.

    Args:
        record: the record of the deletion.
        content_id: of the post; None where the record does not say it.
        consumed_ms: when the record was read, Unix time in ms.
        published_ms: when the event was handed to the producer, Unix time in ms.
    """
    source = _record_source(record)
    place = record.topic, record.partition, record.offset
    return _event(
        event_id=verdict_id(*place, ALL_POLICIES, _NO_POLICY_SHA256),
        changes={"retracts": _retracts(None, content_id, source["key"], "deleted")},
        outcome={
            "decision": "undetermined",
            "action": "none",
            "labels": (),
            "category": None,
            "severity": None,
            "rule_ids": (),
            "rationale": None,
        },
        source=source,
        content={
            "id": content_id or source["key"] or "",
            "sha256": _NO_POLICY_SHA256,
            "author": None,
            "tenant": None,
            "language": None,
        },
        policy={"id": ALL_POLICIES, "version": ALL_POLICIES, "sha256": _NO_POLICY_SHA256},
        tier=(SOURCE, SOURCE, "deleted"),
        timing=(
            record.timestamp if record.timestamp >= 0 else consumed_ms,
            consumed_ms,
            consumed_ms,
            published_ms,
        ),
    )


def _retracts(
    superseded: str | None, content_id: str | None, key: str | None, cause: str
) -> dict[str, Any]:
    return {"verdict_id": superseded, "content_id": content_id, "key": key, "cause": cause}


def _record_source(record: Record) -> dict[str, Any]:
    key = record.key
    return {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "key": None if key is None else key.decode("utf-8", "backslashreplace"),
        "timestamp_ms": record.timestamp,
    }


def _event(
    *,
    event_id: str,
    changes: dict[str, Any],
    outcome: dict[str, Any],
    source: dict[str, Any],
    content: dict[str, Any],
    policy: dict[str, Any],
    tier: tuple[str, str, str],
    timing: tuple[int, int, int, int],
) -> dict[str, Any]:
    """Return an event in the shape of a verdict; ``tier`` is tier, model and reason of the only step."""
    name, model, reason = tier
    event_ms, consumed_ms, judged_ms, published_ms = timing
    step = {"tier": name, "outcome": "settled", "reason": reason, "duration_us": 0, "effort": None}
    said = ("labels", "category", "severity", "rule_ids", "rationale")
    return {
        "schema_version": SCHEMA_VERSION,
        "id": event_id,
        **changes,
        "decision": outcome["decision"],
        "action": outcome["action"],
        "needs_review": False,
        "review_reasons": [],
        "source": source,
        "content": content,
        "policy": policy | {field: outcome[field] for field in said},
        "confidence": {"value": None, "method": None, "raw": None},
        "provenance": {
            "route_mode": "live",
            "tier": name,
            "model": model,
            "revision": None,
            "engine_version": None,
            "effort": None,
            "prompt_sha256": None,
            "prompt_ids_sha256": None,
            "prompt_tokens": 0,
            "cached_tokens": 0,
            "output_tokens": 0,
            "finish_reason": "none",
            "parse_status": "not_applicable",
            "reasoning_cut": False,
            "sampling": None,
            "windows": 1,
            "context_dropped": 0,
            "prompt_tokens_max": None,
            "attempts": 0,
            "degraded": [],
            "trail": [step],
        },
        "timing": {
            "event": event_ms,
            "consumed": consumed_ms,
            "judged": judged_ms,
            "published": published_ms,
        },
    }
