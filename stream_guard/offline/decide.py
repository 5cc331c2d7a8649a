"""Makes a person's decision about a published verdict, and writes it to the decisions topic."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from stream_guard.core.errors import OperatorError, PolicyError, SettingsError
from stream_guard.kafka.archive import DECISIONS, ensure_compacted
from stream_guard.kafka.decision_writer import write_decision
from stream_guard.offline.audit.replay_run import Wanted, check_ids, find_verdicts
from stream_guard.offline.choice import Section, decision_of
from stream_guard.policies.section import section_sha256
from stream_guard.policies.store import load_policies
from stream_guard.records.decision import about_verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from stream_guard.kafka.bounds import Bound
    from stream_guard.offline.choice import Choice
    from stream_guard.policies.policy import Policy
    from stream_guard.records.decision import Decision
    from stream_guard.settings import Settings

__all__ = ["decide", "make_decision", "section_of"]


async def decide(
    settings: Settings,
    verdict_id: str,
    choice: Choice,
    *,
    by: str,
    role: str,
    now_ms: int,
    first: Bound | None = None,
    progress: Callable[[int, int], None],
) -> Decision:
    """Find a verdict, write one decision about it, and return the decision.

    Args:
        settings: all sections.
        verdict_id: of the verdict, in the verdict topic.
        choice: what the person chose.
        by: the person's pseudonym.
        role: the person's role.
        now_ms: when it was decided, Unix time in ms.
        first: where the search begins; None for the start of the topic.
        progress: called with the offsets read and their total.

    Raises:
        OperatorError: there is no such verdict, or the choice does not fit its policy.
        BrokerError: the broker cannot be used.
    """
    if not settings.decisions.enabled:
        raise SettingsError(
            "decisions.enabled (STREAM_GUARD_DECISIONS__ENABLED) is false, so nobody would read the decision; set it "
            "to the service's value"
        )
    wanted = Wanted(ids=check_ids([verdict_id]), first=first, last=None, policy=None)
    [verdict] = await find_verdicts(settings, wanted, progress)
    decision = make_decision(settings, verdict, choice, by=by, role=role, now_ms=now_ms)
    await ensure_compacted(settings.kafka, settings.kafka.decision_topic, DECISIONS)
    await write_decision(settings.kafka, decision)
    return decision


def make_decision(
    settings: Settings,
    verdict: dict[str, Any],
    choice: Choice,
    *,
    by: str,
    role: str,
    now_ms: int,
) -> Decision:
    """Return the decision about a verdict. Raises OperatorError as :func:`decide`."""
    policy = _policy_of(settings, verdict["policy"]["id"])
    section = choice.category or verdict["policy"]["category"]
    digest = None
    if policy is not None and policy.sha256 == verdict["policy"]["sha256"]:
        digest = section_sha256(policy, section)
        if section is not None and digest is None:
            codes = ", ".join(each.code for each in policy.taxonomy.categories) or "none"
            raise OperatorError(
                f"--category: {policy.id!r} has no category {section!r}; use one of: {codes}"
            )
    return decision_of(
        choice,
        decision_id=f"cli-{uuid.uuid4().hex}",
        by=by,
        role=role,
        about=about_verdict(verdict, section=section if digest else None, section_sha256=digest),
        outcome=_outcome(choice, policy),
        now_ms=now_ms,
    )


def _outcome(choice: Choice, policy: Policy | None) -> dict[str, Any] | None:
    if choice.decision is None:
        return None
    action, severity = choice.action or "none", None
    if choice.decision == "violates":
        known = "review" if policy is None else policy.action_for(choice.category)
        action = choice.action or known
        if policy is not None and choice.category is not None:
            severity = policy.severity_of(choice.category)
    return {
        "decision": choice.decision,
        "category": choice.category,
        "severity": severity,
        "action": action,
    }


def section_of(settings: Settings, policy: Mapping[str, Any], code: str | None) -> Section:
    """Return what a decision rests on, by the folder of policies.

    Args:
        settings: of the folder.
        policy: id and sha256 of the version that was decided by. An edited folder has another one, and no section.
        code: of the category; None for the whole text.
    """
    found = _policy_of(settings, policy["id"])
    if found is None or found.sha256 != policy["sha256"]:
        return Section(None, None)
    digest = section_sha256(found, code)
    return Section(code if digest else None, digest)


def _policy_of(settings: Settings, policy_id: str) -> Policy | None:
    """Return a policy as the folder has it; None where it has none."""
    try:
        policies = load_policies(settings.policies.path)
    except PolicyError:
        return None
    return policies.policies.get(policy_id)
