"""Says what is weak or wrong in a policy, by stable codes, each with its place and a remedy. Pure.

``error`` findings stop a start and keep a reload from going live; the others are advice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_guard.policies.lint.answers import check_answers
from stream_guard.policies.lint.examples import check_examples
from stream_guard.policies.lint.findings import CODES, Code, Finding, Severity
from stream_guard.policies.lint.ids import check_ids
from stream_guard.policies.lint.rules import check_rules
from stream_guard.policies.lint.tiers import check_tiers
from stream_guard.policies.lint.words import check_words, estimate_tokens

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_guard.policies.policy import Policy, PolicySet

__all__ = [
    "CODES",
    "Code",
    "Finding",
    "Severity",
    "estimate_tokens",
    "lint_policies",
    "lint_policy",
]


def lint_policy(
    policy: Policy,
    *,
    source: str | None = None,
    count_tokens: Callable[[str], int] = estimate_tokens,
) -> list[Finding]:
    """Return what there is to say of one policy, in the order of its lines.

    Args:
        policy: what to look at.
        source: the file's name in the findings; by default ``<id>/policy.md``.
        count_tokens: how many tokens the model makes of a text; by default an estimate.
    """
    source = source or f"{policy.id}/policy.md"
    findings = [
        *check_words(policy, source, count_tokens),
        *check_answers(policy, source),
        *check_ids(policy, source),
        *check_examples(policy, source),
        *check_rules(policy, source),
        *check_tiers(policy, source),
    ]
    return sorted(findings, key=lambda finding: (finding.file, finding.line, finding.column))


def lint_policies(
    policies: PolicySet,
    *,
    folder: str = "",
    count_tokens: Callable[[str], int] = estimate_tokens,
) -> list[Finding]:
    """Return what there is to say of every policy, and of their routes.

    Args:
        policies: what to look at.
        folder: put before the files' names, with a slash.
        count_tokens: as for :func:`lint_policy`.
    """
    prefix = f"{folder}/" if folder else ""
    findings: list[Finding] = []
    for policy in policies.policies.values():
        source = f"{prefix}{policy.id}/policy.md"
        findings += lint_policy(policy, source=source, count_tokens=count_tokens)
    routed = policies.routing.named()
    findings += [
        CODES["SG201"].at(f"{prefix}routes.yaml", detail=f"no route names the policy {slug!r}")
        for slug in policies.policies
        if slug not in routed
    ]
    if not policies.default:
        findings.append(CODES["SG202"].at(f"{prefix}routes.yaml"))
    return findings
