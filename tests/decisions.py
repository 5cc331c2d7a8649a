"""Decisions of people, for tests of all that reads them."""

from __future__ import annotations

from typing import Any

from stream_guard.records.decision import Decision
from stream_guard.records.verdict_event import verdict_id


def make_decision(kind: str = "review", **changes: Any) -> Decision:  # noqa: ANN401
    """Return a decision about the verdict on ``posts/0/0``, content ``p0``, by the policy ``spam``.

    Args:
        kind: of the decision.
        changes: of top-level fields; ``content``, ``policy`` and ``source`` change those parts of ``about``.
    """
    content = {"id": "p0", "sha256": "0" * 64, "author": None, "tenant": None, "language": None}
    policy = {
        "id": "spam",
        "version": "1",
        "sha256": "0" * 64,
        "section": None,
        "section_sha256": None,
    }
    source = {"topic": "posts", "partition": 0, "offset": 0, "key": "k", "timestamp_ms": 1}
    content |= changes.pop("content", {})
    policy |= changes.pop("policy", {})
    source |= changes.pop("source", {})
    name = verdict_id(
        source["topic"], source["partition"], source["offset"], policy["id"], policy["sha256"]
    )
    breaker = {"action": "remove", "policy": None, "tenant": None}
    document: dict[str, Any] = {
        "schema_version": "1.0",
        "id": "d-1",
        "kind": kind,
        "decided_at": 1_700_000_001_000,
        "decided_by": {"id": "r-1", "role": "reviewer"},
        "about": {"verdict_id": name, "content": content, "policy": policy, "source": source},
        "outcome": {
            "decision": "safe",
            "category": None,
            "severity": None,
            "labels": (),
            "rule_ids": (),
            "action": "none",
        },
        "reason": "satire",
        "valid_until": None,
        "breaker": breaker if kind == "breaker_reset" else None,
    }
    if kind == "breaker_reset":
        document["about"] = None
    if kind not in ("review", "appeal"):
        document["outcome"] = None
    return Decision.model_validate(document | changes)
