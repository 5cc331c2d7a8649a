"""The linter of policies: findings with stable codes, positions and remedies. Pure.

``error`` findings stop the start and reject a reload; other findings are advice. May import:
``policies.policy`` and below.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_guard.policies.lint.answers import check_answers
from stream_guard.policies.lint.context import Context, check_context
from stream_guard.policies.lint.examples import check_examples
from stream_guard.policies.lint.findings import CODES, Code, Finding, Severity
from stream_guard.policies.lint.ids import check_ids
from stream_guard.policies.lint.lanes import check_lanes
from stream_guard.policies.lint.rules import check_rules
from stream_guard.policies.lint.tiers import check_tiers
from stream_guard.policies.lint.words import check_words, estimate_tokens

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_guard.policies.policy import Policy, PolicySet

__all__ = [
    "CODES",
    "Code",
    "Context",
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
    """Return the findings of one policy, in the order of its lines.

    Args:
        policy: the policy.
        source: the file's name in the findings; by default ``<id>/policy.md``.
        count_tokens: returns the number of tokens of a text; by default an estimate.
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
    context: Context | None = None,
) -> list[Finding]:
    """Return the findings of every policy and of the routes.

    Args:
        policies: the policies.
        folder: prefix of the file names.
        count_tokens: as for :func:`lint_policy`.
        context: what bounds a prompt; None to leave lengths out.
    """
    prefix = f"{folder}/" if folder else ""
    findings: list[Finding] = []
    for policy in policies.policies.values():
        source = f"{prefix}{policy.id}/policy.md"
        findings += lint_policy(policy, source=source, count_tokens=count_tokens)
        if context is not None:
            findings += check_context(policy, source, count_tokens, context)
    routed = policies.routing.named()
    findings += [
        CODES["SG201"].at(f"{prefix}routes.yaml", detail=f"no route names the policy {slug!r}")
        for slug in policies.policies
        if slug not in routed
    ]
    if not policies.default:
        findings.append(CODES["SG202"].at(f"{prefix}routes.yaml"))
    findings += check_lanes(policies, f"{prefix}routes.yaml")
    return findings
