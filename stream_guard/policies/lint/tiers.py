"""Findings about calibration and thresholds. Pure."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING

from stream_guard.policies.lint.findings import CODES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_guard.policies.lint.findings import Finding
    from stream_guard.policies.policy import Policy

__all__ = ["check_tiers"]


def check_tiers(policy: Policy, source: str) -> Iterator[Finding]:
    """Yield findings about calibration and thresholds; ``source`` names ``policy.md``."""
    beside = PurePath(source)
    curve = policy.calibration
    if curve is not None and curve.policy_sha256 != policy.sha256:
        detail = (
            f"the calibration is for version {curve.policy_sha256[:12]}, this is version "
            f"{policy.sha256[:12]}: it is not used"
        )
        yield CODES["SG401"].at(str(beside.with_name("calibration.json")), detail=detail)
    thresholds = policy.thresholds
    if thresholds is not None and thresholds.violates_above < 1.0 and thresholds.category is None:
        violating = [c.code for c in policy.taxonomy.categories if c.violates]
        if len(violating) > 1:
            detail = (
                f"violates_above has no effect: the policy has {len(violating)} violating categories "
                f"({', '.join(violating[:5])})"
            )
            yield CODES["SG402"].at(str(beside.with_name("policy.yaml")), detail=detail)
