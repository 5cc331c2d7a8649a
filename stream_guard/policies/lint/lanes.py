"""Findings about the lanes of ``routes.yaml``. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_guard.policies.lanes import severity_of
from stream_guard.policies.lint.findings import CODES
from stream_guard.policies.route_facts import RouteFacts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_guard.policies.lint.findings import Finding
    from stream_guard.policies.policy import PolicySet

__all__ = ["check_lanes"]


def check_lanes(policies: PolicySet, file: str) -> Iterator[Finding]:
    """Yield what no post can ever meet in the lanes of a set, by the name of their file."""
    declared = {severity_of(policy.taxonomy) for policy in policies.policies.values()}
    for lane in policies.routing.lanes.all:
        for severity in lane.severities:
            if severity not in declared:
                detail = (
                    f"lane {lane.name!r} is for policies of severity {severity}, and there is none: a policy counts "
                    "by its most severe violating category"
                )
                yield CODES["SG203"].at(file, detail=detail)
        wanted = [one for one in lane.conditions if one.kind == "tenant"]
        for tenant in lane.tenants:
            if not all(one.matches(RouteFacts("", tenant=tenant)) for one in wanted):
                detail = f"lane {lane.name!r} names the tenant {tenant!r}, and its when.tenant excludes it"
                yield CODES["SG204"].at(file, detail=detail)
