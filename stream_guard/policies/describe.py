"""Describes policies for ``policies show`` and ``policies list``, as plain data and as lines. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_guard.policies.outcomes import Outcome
    from stream_guard.policies.policy import Policy, PolicySet
    from stream_guard.policies.rules.ruleset import RuleSet
    from stream_guard.policies.taxonomy import Found, Taxonomy, What

__all__ = ["describe_policy", "list_lines", "show_lines"]


_COUNTS: Final = ("patterns", "terms", "hashes")


def _place(found: Found | None) -> dict[str, Any] | None:
    """Return the place of a finding as plain data, or None."""
    if found is None:
        return None
    return {
        "file": found.file if found.line else None,
        "line": found.line or None,
        "how": found.how,
    }


def describe_calibration(policy: Policy) -> dict[str, Any] | None:
    """Return the source of a policy's calibration, and whether it is for this version; None where there is none."""
    curve = policy.calibration
    if curve is None:
        return None
    return {
        "method": curve.method,
        "model": curve.model,
        "revision": curve.revision,
        "fitted_on": curve.fitted_on,
        "used": curve.policy_sha256 == policy.sha256,
    }


# Over 60 lines: most of them are one literal, a key for each field.
def describe_policy(policy: Policy) -> dict[str, Any]:
    """Return everything about a policy except its text; each inferred value has its place in ``found``."""
    taxonomy = policy.taxonomy

    def where(what: What, value: str) -> dict[str, Any] | None:
        return _place(taxonomy.where(what, value))

    return {
        "id": policy.id,
        "version": policy.version,
        "sha256": policy.sha256,
        "effort": policy.effort,
        "reasoning_tokens_max": policy.reasoning_tokens_max,
        **policy.decoding._asdict(),
        "action": policy.action,
        "undetermined": policy.undetermined,
        "judge": policy.judge,
        "answer": policy.answer,
        "answer_format": _describe_format(policy),
        "tiers": policy.tiers,
        "classifier": policy.classifier,
        "thresholds": policy.thresholds.model_dump(exclude_none=True)
        if policy.thresholds
        else None,
        "golden_set": policy.golden_set,
        "limits": [terms.model_dump(exclude_defaults=True) for terms in policy.limits] or None,
        "gates": policy.gates.model_dump(exclude_none=True) or None,
        "calibration": describe_calibration(policy),
        "labels": [
            {
                "decision": "violates",
                "label": taxonomy.violates_label,
                "found": where("violates_label", taxonomy.violates_label),
            },
            {
                "decision": "safe",
                "label": taxonomy.safe_label,
                "found": where("safe_label", taxonomy.safe_label),
            },
        ],
        "outcomes": [_describe_outcome(taxonomy, outcome) for outcome in taxonomy.outcomes],
        "categories": [
            {
                "code": category.code,
                "title": category.title,
                "severity": category.severity,
                "action": category.action,
                "found": where("category", category.code),
                "label": taxonomy.outcome_of(category).word,
                "violates": category.violates,
                "violates_found": where("violates", category.code),
                "needs_review": category.needs_review,
            }
            for category in taxonomy.categories
        ],
        "categories_complete": taxonomy.complete,
        "label_kinds": taxonomy.label_kinds,
        "unread": [
            {"title": found.value, "line": found.line}
            for found in taxonomy.found
            if found.what == "unread"
        ],
        "rule_ids": [{"id": rule, "found": where("rule_id", rule)} for rule in taxonomy.rule_ids],
        "rules": None if policy.rules is None else _describe_rules(policy.rules),
    }


def _describe_format(policy: Policy) -> dict[str, Any]:
    """Return the answer format that the text states, as plain data; ``unread`` says why none could be read."""
    form = policy.answer_format
    if isinstance(form, str):
        return {"kind": None, "choices": (), "keys": (), "found": None, "unread": form}
    file = "policy.md" if form.line else "policy.yaml" if form.how == "declared" else None
    return {
        "kind": form.kind,
        "choices": form.choices,
        "keys": [key.name for key in form.keys],
        "found": {"file": file, "line": form.line or None, "how": form.how},
        "unread": None,
    }


def _describe_outcome(taxonomy: Taxonomy, outcome: Outcome) -> dict[str, Any]:
    """Return an outcome as plain data."""
    return {
        "label": outcome.word,
        "decision": outcome.decision,
        "action": outcome.action,
        "needs_review": outcome.needs_review,
        "found": _outcome_place(taxonomy, outcome),
    }


def _outcome_place(taxonomy: Taxonomy, outcome: Outcome) -> dict[str, Any] | None:
    """Return the place of an outcome as plain data, or None."""
    if outcome.word == taxonomy.violates_label:
        return _place(taxonomy.where("violates_label", outcome.word))
    if outcome.word == taxonomy.safe_label:
        return _place(taxonomy.where("safe_label", outcome.word))
    return _place(taxonomy.where("outcome", outcome.word))


def _describe_rules(rules: RuleSet) -> dict[str, Any]:
    """Return everything about a policy's rules except their terms and patterns."""
    return {
        "sha256": rules.sha256,
        "rules": [
            {
                "id": rule.id,
                "line": rule.line,
                "outcome": rule.outcome,
                "category": rule.category,
                "rule_ids": rule.rule_ids,
                "languages": rule.languages,
                "raw": rule.raw,
                "except": rule.exceptions is not None,
                **rule.counts,
            }
            for rule in rules.rules
        ],
    }


def show_lines(policy: Policy) -> Iterator[str]:
    """Yield a policy's description as lines for people."""
    described = describe_policy(policy)
    for key in (
        "id",
        "version",
        "sha256",
        "effort",
        "reasoning_tokens_max",
        *(policy.decoding._fields if policy.decoding.temperature else ()),
        "action",
        "undetermined",
        "answer",
        *(("judge",) if policy.judge != "post" else ()),
    ):
        yield f"{key:<21} {described[key]}"
    for key in (
        "tiers",
        "classifier",
        "thresholds",
        "golden_set",
        "limits",
        "gates",
        "calibration",
    ):
        if described[key] is not None:
            yield f"{key:<21} {described[key]}"
    yield "labels"
    for label in described["outcomes"]:
        extra = " ".join(
            filter(None, (label["action"], "needs review" if label["needs_review"] else None))
        )
        place = f"{_place_text(label['found'])}{extra and f' ({extra})'}"
        yield f"  {label['label']:<12} {label['decision']:<9} {place}"
    yield f"categories ({len(described['categories'])})"
    decisions = {label["label"]: label["decision"] for label in described["outcomes"]}
    for category in described["categories"]:
        decision = decisions[category["label"]]
        review = "needs review" if category["needs_review"] else None
        extra = " ".join(filter(None, (category["severity"], category["action"], review)))
        yield f"  {category['code']:<12} {decision:<9} {category['title']}{extra and f' ({extra})'}"
        yield f"  {'':<12} named: {_place_text(category['found'])}"
        yield f"  {'':<12} {decision}: {_place_text(category['violates_found'])}"
    yield from _coverage_lines(described)
    yield from _format_lines(described["answer"], described["answer_format"])
    yield f"rule ids ({len(described['rule_ids'])})"
    for rule in described["rule_ids"]:
        yield f"  {rule['id']:<12} {_place_text(rule['found'])}"
    if described["rules"] is not None:
        yield f"rules ({len(described['rules']['rules'])}), sha256 {described['rules']['sha256']}"
        for rule in described["rules"]["rules"]:
            counts = ", ".join(f"{rule[key]:,} {key}" for key in _COUNTS if rule[key])
            outcome = " ".join(
                filter(None, (rule["outcome"], rule["category"], *rule["languages"]))
            )
            yield f"  {rule['id']:<12} {outcome}: {counts} (rules.yaml:{rule['line']})"


def _format_lines(answer: str, form: dict[str, Any]) -> Iterator[str]:
    """Yield the answer format that the text states, and whether it is used."""
    used = "used" if answer == "native" else "not used: Stream Guard states the format"
    if form["unread"] is not None:
        yield f"answer format of the text  none: {form['unread']}"
        return
    shown = ", ".join(form["choices"] or form["keys"]) or "one label of each kind"
    yield f"answer format of the text  {form['kind']} ({used})"
    yield f"  {shown}"
    yield f"  {_place_text(form['found'])}"


def _coverage_lines(described: dict[str, Any]) -> Iterator[str]:
    """Yield what may be missing from the categories, and the kinds of labels of an item."""
    if described["categories"] and not described["categories_complete"]:
        yield "categories may be missing: an answer may violate without one"
        for unread in described["unread"]:
            yield f"  policy.md:{unread['line']}: {unread['title']}"
    if described["label_kinds"]:
        yield f"labels of each item     {', '.join(described['label_kinds'])}"


def _place_text(place: dict[str, Any] | None) -> str:
    if place is None:
        return ""
    return f"{place['file']}:{place['line']} ({place['how']})" if place["line"] else place["how"]


def list_lines(policies: PolicySet) -> Iterator[tuple[str, str, str, str, str]]:
    """Yield a row for each policy: id, version, labels, categories, and its topics."""
    for policy in policies.policies.values():
        taxonomy = policy.taxonomy
        topics = [topic for topic, ids in policies.topics.items() if policy.id in ids]
        topics += ["(default)"] if policy.id in policies.default else []
        violating = [category.code for category in taxonomy.categories if category.violates]
        yield (
            policy.id,
            policy.version,
            " / ".join(outcome.word for outcome in taxonomy.outcomes),
            f"{len(taxonomy.categories)}, {len(violating)} violate",
            ", ".join(topics) or "none",
        )
