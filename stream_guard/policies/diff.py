"""Compares two sets of policies: texts, metadata, routes. Pure."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from stream_guard.policies.describe import describe_policy
from stream_guard.policies.text import split_lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stream_guard.policies.lanes import Quota
    from stream_guard.policies.policy import Policy, PolicySet
    from stream_guard.policies.routing import Routing

__all__ = ["FieldChange", "PolicyChange", "SetDiff", "diff_lines", "diff_policies", "diff_texts"]


@dataclass(slots=True, frozen=True)
class FieldChange:
    """A changed field; None means that the field is absent."""

    field: str
    before: Any
    after: Any


@dataclass(slots=True, frozen=True)
class PolicyChange:
    """An added, removed or changed policy.

    Attributes:
        id: its id.
        kind: ``added``, ``removed`` or ``changed``.
        versions: before and after, as ``label (first 12 of sha256)``; None where there is none.
        text: lines of a unified diff of ``policy.md``.
        metadata: changed fields, declared or inferred.
    """

    id: str
    kind: Literal["added", "removed", "changed"]
    versions: tuple[str | None, str | None]
    text: tuple[str, ...]
    metadata: tuple[FieldChange, ...]


@dataclass(slots=True, frozen=True)
class SetDiff:
    """All differences; false where there are none."""

    policies: tuple[PolicyChange, ...]
    routing: tuple[FieldChange, ...]

    def __bool__(self) -> bool:
        return bool(self.policies or self.routing)


def diff_policies(before: PolicySet, after: PolicySet) -> SetDiff:
    """Compare two sets; policies are in the order of their ids."""
    ids = sorted({*before.policies, *after.policies})
    changes = (_change(i, before.policies.get(i), after.policies.get(i)) for i in ids)
    return SetDiff(
        tuple(change for change in changes if change is not None),
        _fields(_routes(before.routing), _routes(after.routing)),
    )


def _change(policy_id: str, before: Policy | None, after: Policy | None) -> PolicyChange | None:
    if before == after:
        return None
    kind: Literal["added", "removed", "changed"] = "changed"
    if before is None or after is None:
        kind = "added" if before is None else "removed"
    text = diff_texts(
        before.text if before else "", after.text if after else "", f"{policy_id}/policy.md"
    )
    return PolicyChange(
        policy_id,
        kind,
        (_version(before), _version(after)),
        text,
        _fields(_metadata(before), _metadata(after)),
    )


def diff_texts(before: str, after: str, name: str) -> tuple[str, ...]:
    """Return the lines of a unified diff of two texts of a file; none where they are equal."""
    return tuple(
        difflib.unified_diff(
            split_lines(before), split_lines(after), f"before/{name}", f"after/{name}", lineterm=""
        )
    )


def _version(policy: Policy | None) -> str | None:
    return f"{policy.version} ({policy.sha256[:12]})" if policy else None


def _metadata(policy: Policy | None) -> dict[str, Any]:
    """Return the fields of a policy except its text and folder, by dotted names."""
    if policy is None:
        return {}
    described = describe_policy(policy)
    found: dict[str, Any] = {
        name: described[name]
        for name in (
            "effort",
            "reasoning_tokens_max",
            "temperature",
            "top_p",
            "samples",
            "action",
            "undetermined",
            "answer",
            "judge",
            "tiers",
            "thresholds",
            "golden_set",
            "limits",
        )
    }
    for label in described["labels"]:
        found[f"labels.{label['decision']}"] = label["label"]
    for outcome in described["outcomes"]:
        for name in ("decision", "action", "needs_review"):
            found[f"outcomes.{outcome['label']}.{name}"] = outcome[name]
    for category in described["categories"]:
        for name in ("title", "label", "violates", "needs_review", "severity", "action"):
            found[f"categories.{category['code']}.{name}"] = category[name]
    form = described["answer_format"]
    found["answer_format"] = form["kind"]
    found["answer_format.choices"] = list(form["choices"] or form["keys"])
    found["categories_complete"] = described["categories_complete"]
    found["label_kinds"] = list(described["label_kinds"])
    found["rule_ids"] = [rule["id"] for rule in described["rule_ids"]]
    if described["rules"] is not None:
        found["rules.sha256"] = described["rules"]["sha256"]
        # The first matching rule decides, so the order is a field of its own.
        found["rules"] = [rule["id"] for rule in described["rules"]["rules"]]
        for rule in described["rules"]["rules"]:
            found |= {
                f"rules.{rule['id']}.{name}": value
                for name, value in rule.items()
                if name not in {"id", "line"}
            }
    return found


def _routes(routing: Routing) -> dict[str, Any]:
    found: dict[str, Any] = {"default": list(routing.default)}
    found |= {f"topics.{topic}": list(ids) for topic, ids in routing.topics.items()}
    # The first matching rule decides, so the order is a field of its own.
    found["rules"] = [rule.name for rule in routing.rules]
    for rule in routing.rules:
        found[f"rules.{rule.name}.when"] = [str(condition) for condition in rule.conditions]
        found[f"rules.{rule.name}.policies"] = list(rule.policies)
    for canary in routing.canaries:
        text = f"{canary.candidate} for {canary.percent:g} % by {canary.key}"
        found[f"canaries.{canary.policy}"] = text
    for shadow in routing.shadows:
        text = f"{shadow.percent:g} % by {shadow.key}, beside {shadow.beside or 'all'}"
        found[f"shadows.{shadow.policy}"] = text
    found |= _lanes(routing)
    return found


def _lanes(routing: Routing) -> dict[str, Any]:
    # The first matching lane takes a post, so the order is a field of its own.
    found: dict[str, Any] = {"lanes": routing.lanes.names()}
    for lane in routing.lanes.all:
        place = f"lanes.{lane.name}"
        found[f"{place}.when"] = [str(condition) for condition in lane.conditions]
        found[f"{place}.severity"] = list(lane.severities)
        found[f"{place}.class"] = "backfill" if lane.backfill else "live"
        found |= {f"{place}.weight": lane.weight, f"{place}.goal_s": lane.goal_s}
        limits, quota = lane.limits, lane.quota
        found[f"{place}.limits"] = [limits.records, limits.bytes, limits.tokens]
        found[f"{place}.quota"] = None if quota is None else _quota(quota)
        for name, tenant in lane.tenants.items():
            own = "no quota" if tenant.quota is None else _quota(tenant.quota)
            found[f"{place}.tenants.{name}"] = f"weight {tenant.weight:g}, {own}"
    return found


def _quota(quota: Quota) -> str:
    return f"{quota.tokens_per_s:g} tokens/s, burst {quota.burst_tokens}, past it {quota.past}"


def _fields(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[FieldChange, ...]:
    names = dict.fromkeys((*before, *after))
    return tuple(
        FieldChange(name, before.get(name), after.get(name))
        for name in names
        if before.get(name) != after.get(name)
    )


def diff_lines(diff: SetDiff) -> Iterator[str]:
    """Yield the differences as lines for people."""
    if not diff:
        yield "no difference"
    for change in diff.policies:
        before, after = change.versions
        yield f"{change.kind} {change.id}: {before or 'none'} -> {after or 'none'}"
        if change.kind == "changed":
            yield from (f"  {_change_line(fields)}" for fields in change.metadata)
        yield from (f"  {line}" for line in change.text)
    if diff.routing:
        yield "routing"
        yield from (f"  {_change_line(fields)}" for fields in diff.routing)


def _change_line(change: FieldChange) -> str:
    def text(value: Any) -> str:  # noqa: ANN401 - any plain value
        if isinstance(value, list | tuple):
            return f"[{', '.join(map(str, value))}]"
        return "nothing" if value is None else str(value)

    return f"{change.field}: {text(change.before)} -> {text(change.after)}"
