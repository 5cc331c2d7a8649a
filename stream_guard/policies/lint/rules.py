"""Findings about ``rules.yaml`` and the files that it names. Pure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from stream_guard.policies.lint.findings import CODES
from stream_guard.policies.lint.words import FINDINGS_MAX

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_guard.policies.lint.findings import Finding
    from stream_guard.policies.policy import Policy

__all__ = ["check_rules"]


def check_rules(policy: Policy, source: str) -> Iterator[Finding]:
    """Yield the faults of a policy's rules; ``source`` names its ``policy.md``."""
    if policy.rules is None:
        return
    folder = source.removesuffix("policy.md")
    if policy.tiers is not None and "rules" not in policy.tiers:
        yield CODES["SG314"].at(f"{folder}rules.yaml")
    counts: Counter[str] = Counter()
    for fault in policy.rules.faults:
        counts[fault.code] += 1
        if counts[fault.code] <= FINDINGS_MAX:
            yield CODES[fault.code].at(
                f"{folder}{fault.file}", fault.line, fault.column, detail=fault.detail
            )
