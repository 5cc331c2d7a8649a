"""Findings about categories and rule ids: duplicate, undefined, or not in the text. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_guard.policies.lint.findings import CODES
from stream_guard.policies.lint.words import FINDINGS_MAX
from stream_guard.policies.taxonomy import defined_rules, named_ids
from stream_guard.policies.text import read_sections

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_guard.policies.lint.findings import Finding
    from stream_guard.policies.policy import Policy

__all__ = ["check_ids"]


def check_ids(policy: Policy, source: str) -> Iterator[Finding]:
    """Yield findings about categories and rule ids."""
    sections = read_sections(policy.text)
    yield from _twice(source, list(defined_rules(sections))[: 100 * FINDINGS_MAX])
    yield from _dangling(policy, source)
    if not policy.taxonomy.complete:
        yield from _unread(policy, source)
    for found in policy.taxonomy.found:
        if found.what == "category" and found.file == "policy.yaml":
            if found.value not in policy.text:
                file = source.removesuffix("policy.md") + "policy.yaml"
                detail = f"the declared category {found.value} does not occur in the text"
                yield CODES["SG116"].at(file, found.line, detail=detail)
        elif found.what == "violates" and found.how.startswith("assumed"):
            place = policy.taxonomy.where("category", found.value)
            line = place.line if place is not None and place.file == "policy.md" else 1
            detail = f"the text does not say whether {found.value} violates; it counts as violating"
            yield CODES["SG117"].at(source, line, detail=detail)


def _unread(policy: Policy, source: str) -> Iterator[Finding]:
    """Yield the sections without a code; an answer may then violate without a category."""
    unread = [found for found in policy.taxonomy.found if found.what == "unread"]
    for found in unread[:FINDINGS_MAX]:
        title = found.value.strip()
        detail = f"{title!r} looks like a violating category and yields no code"
        yield CODES["SG122"].at(source, found.line, detail=detail)


def _twice(source: str, rules: list[tuple[str, int]]) -> Iterator[Finding]:
    first: dict[str, int] = {}
    found = 0
    for rule, line in rules:
        if rule not in first:
            first[rule] = line
        elif found < FINDINGS_MAX:
            found += 1
            detail = f"the rule id {rule} is defined here and in line {first[rule]}"
            yield CODES["SG109"].at(source, line, detail=detail)


def _dangling(policy: Policy, source: str) -> Iterator[Finding]:
    """Yield ids that look like the policy's own, but are not defined."""
    taxonomy = policy.taxonomy
    known = {category.code for category in taxonomy.categories} | set(taxonomy.rule_ids)
    families = {code.rstrip("0123456789") for code in known if code[-1:].isdigit()}
    seen: set[str] = set()
    for name, line, column in named_ids(policy.text):
        # Ignore other letters: MP3, F1, codes of another policy.
        if (
            name in known
            or name in seen
            or name.partition(".")[0].rstrip("0123456789") not in families
        ):
            continue
        seen.add(name)
        if len(seen) > FINDINGS_MAX:
            return
        yield CODES["SG110"].at(source, line, column, detail=f"{name} is not defined")
