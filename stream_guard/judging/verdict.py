"""Builds verdicts from judgements. Pure.

The id depends on topic, partition, offset, policy id and policy sha256 alone, so that the same record under the same
policy always has the same verdict id. Where a person decided, it is made of that id and the decision's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from stream_guard.policies.calibration import calibrate
from stream_guard.records.verdict_changes import superseding_id
from stream_guard.records.verdict_event import SCHEMA_VERSION, verdict_id

ACTION_LIMITED: Final = "action_limited"
"""In ``degraded`` and among the reasons of a verdict whose action became a review, because a limit was reached."""

if TYPE_CHECKING:
    from stream_guard.core.kafka_types import Record
    from stream_guard.core.vocabulary import Mode
    from stream_guard.judging.contract import Answer, Decided, Judgement, Provenance, Sampled
    from stream_guard.policies.policy import Policy

_DAY_MS: Final = 86_400_000


def review_reasons(answer: Answer, provenance: Provenance, policy: Policy) -> list[str]:
    """Return why a person should review a post; empty where nobody need.

    One should if nothing was decided, the answer or its category asks for a person, the answer's form was not exact,
    its reasoning was cut at the budget, or its action became a review at a limit.
    """
    reasons = []
    if answer.decision == "undetermined":
        if answer.is_escalated:
            reasons.append("label")
        else:
            tied = provenance.sampling is not None and provenance.sampling.is_tied
            reasons.append("no_majority" if tied else "undetermined")
    elif answer.needs_review:
        reasons.append("label")
    category = policy.taxonomy.category(answer.category) if answer.category is not None else None
    if category is not None and category.needs_review:
        reasons.append("category")
    if answer.parse_status not in ("ok", "not_applicable"):
        reasons.append("parse_status")
    if provenance.reasoning_cut:
        reasons.append("reasoning_cut")
    if ACTION_LIMITED in provenance.degraded:
        reasons.append(ACTION_LIMITED)
    return reasons


def recommended_action(answer: Answer, policy: Policy) -> str:
    """Return the action recommended to enforcement: ``none``, ``review``, or what the policy says.

    For a violation that is the action of its category, its label or the policy. A label that leaves the decision to
    people asks for a review, if it has no action of its own. For what could not be decided, the policy's rule holds:
    failing open recommends nothing, failing closed the policy's own action, and holding a review.
    """
    if answer.decision == "violates":
        return policy.action_for(answer.category, answer.labels)
    if answer.category is not None or answer.labels:
        outcome = policy.outcome_of(answer.category, answer.labels)
        if outcome is not None and outcome.action and outcome.decision == answer.decision:
            return outcome.action
    if answer.decision == "safe":
        return "none"
    if answer.is_escalated:
        return "review"
    if policy.undetermined == "fail_open":
        return "none"
    return policy.action if policy.undetermined == "fail_closed" else "review"


def _sampling(sampled: Sampled) -> dict[str, Any]:
    return {**sampled._asdict(), "votes": sampled.votes._asdict()}


# Over 60 lines: half of them are one literal in the shape of the schema.
def build_verdict(
    record: Record,
    judgement: Judgement,
    *,
    consumed_ms: int,
    published_ms: int,
    route_mode: Mode = "live",
) -> dict[str, Any]:
    """Return a verdict as the JSON Schema describes it.

    Args:
        record: where the post came from.
        judgement: with an answer.
        consumed_ms: when the record was read, Unix time in ms.
        published_ms: when the verdict was handed to the producer, Unix time in ms.
        route_mode: how the policy came to judge the post. A shadow's verdict recommends nothing and asks for no
            review, so that even a reader who takes it for another does not act on it.
    """
    answer, provenance = judgement.answer, judgement.provenance
    assert answer is not None, "a judgement with an error becomes a dead letter"
    assert provenance is not None, "a judge says how it came to its answer"
    post, policy = judgement.request.post, judgement.request.policy
    reasons = [] if route_mode == "shadow" else review_reasons(answer, provenance, policy)
    action = "none" if route_mode == "shadow" else recommended_action(answer, policy)
    if ACTION_LIMITED in provenance.degraded:
        action = "review"
    dropped = post.context_dropped or provenance.context_dropped
    if dropped and policy.judge == "thread" and route_mode != "shadow":
        reasons.append("context_dropped")
    confidence, method = judgement.confidence, judgement.confidence_method
    if policy.calibration is not None:  # a call less for most policies
        confidence, method = calibrate(
            confidence,
            method,
            policy.calibration,
            policy_sha256=policy.sha256,
            model=provenance.model,
            revision=provenance.revision,
        )
    event_ms = post.created_at_ms
    if event_ms is None:  # a record without a timestamp has -1
        event_ms = record.timestamp if record.timestamp >= 0 else consumed_ms
    content: dict[str, Any] = {
        "id": post.id,
        "sha256": post.sha256,
        "author": post.author,
        "tenant": post.tenant,
        "language": post.language,
    }
    if post.repaired:
        content["repaired"] = True
    if post.nulled:
        content["nulled"] = post.nulled
    if post.context or post.context_dropped:
        content["context"] = {"texts": len(post.context), "dropped": post.context_dropped}
    if post.markup is not None:
        content["markup"] = {
            "format": post.markup.format,
            "changes": post.markup.changes,
            "model_read": "text" if post.markup.for_model else "original",
        }
    verdict: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "id": verdict_id(record.topic, record.partition, record.offset, policy.id, policy.sha256),
        "decision": answer.decision,
        "action": action,
        "needs_review": bool(reasons),
        "review_reasons": reasons,
        "source": {
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "key": None if record.key is None else record.key.decode("utf-8", "backslashreplace"),
            "timestamp_ms": record.timestamp,
        },
        "content": content,
        "policy": {
            "id": policy.id,
            "version": policy.version,
            "sha256": policy.sha256,
            "labels": answer.labels,
            "category": answer.category,
            "severity": None if answer.category is None else policy.severity_of(answer.category),
            "rule_ids": answer.rule_ids,
            "rationale": answer.rationale,
        },
        "confidence": {"value": confidence, "method": method, "raw": judgement.confidence},
        "provenance": {
            "route_mode": route_mode,
            "tier": provenance.tier,
            "model": provenance.model,
            "revision": provenance.revision,
            "engine_version": provenance.engine_version,
            "effort": provenance.effort,
            "prompt_sha256": provenance.prompt_sha256,
            "prompt_ids_sha256": provenance.prompt_ids_sha256,
            "prompt_tokens": provenance.prompt_tokens,
            "cached_tokens": provenance.cached_tokens,
            "output_tokens": provenance.output_tokens,
            "finish_reason": provenance.finish_reason,
            "parse_status": answer.parse_status,
            "reasoning_cut": provenance.reasoning_cut,
            "sampling": None if provenance.sampling is None else _sampling(provenance.sampling),
            "windows": provenance.windows,
            "context_dropped": provenance.context_dropped,
            "prompt_tokens_max": provenance.prompt_tokens_max,
            "attempts": provenance.attempts,
            "degraded": provenance.degraded,
            "trail": [
                {
                    "tier": step.tier,
                    "outcome": step.outcome,
                    "reason": step.reason,
                    "duration_us": step.duration_us,
                    "effort": step.effort,
                }
                for step in provenance.trail
            ],
        },
        "timing": {
            "event": event_ms,
            "consumed": consumed_ms,
            "judged": judgement.finished_ns // 1_000_000,
            "published": published_ms,
        },
    }
    if judgement.decided is not None or answer.decision == "violates":  # a call less for most posts
        _add_changes(verdict, judgement, route_mode)
    return verdict


def _add_changes(verdict: dict[str, Any], judgement: Judgement, route_mode: Mode) -> None:
    """Add what a person decided, or when the machine's verdict expires, in place."""
    if judgement.decided is not None:
        _decide(verdict, judgement.decided, route_mode)
        return
    code = verdict["policy"]["category"]
    if code is not None:
        category = judgement.request.policy.taxonomy.category(code)
        if category is not None and category.valid_days is not None:
            verdict["valid_until"] = verdict["timing"]["published"] + category.valid_days * _DAY_MS


def _decide(verdict: dict[str, Any], decided: Decided, route_mode: Mode) -> None:
    """Make a verdict say what a person decided, in place. It has an id of its own, so that no reader drops it."""
    verdict["supersedes"] = verdict["id"]
    verdict["id"] = superseding_id(decided.decision_id, verdict["id"])
    verdict["revision"] = decided.decided_at_ms
    verdict["decision_id"] = decided.decision_id
    if decided.valid_until_ms is not None:
        verdict["valid_until"] = decided.valid_until_ms
    verdict["needs_review"], verdict["review_reasons"] = False, []
    verdict["policy"]["severity"] = decided.severity
    if route_mode != "shadow":
        verdict["action"] = decided.action
