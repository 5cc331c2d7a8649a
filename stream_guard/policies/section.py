"""Finds the part of a policy that gives a category its meaning. Pure."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from stream_guard.policies.text import read_sections, split_lines

if TYPE_CHECKING:
    from stream_guard.policies.policy import Policy

__all__ = ["section_sha256", "section_text"]


def section_sha256(policy: Policy, code: str | None) -> str | None:
    """Return the hex digest of a category's meaning; None where the policy has no such category.

    The digest is of the category's stance, a NUL, and the text of its section with all sections below it. A category
    that the text does not name has the whole text, and so has the policy itself.

    Args:
        policy: the policy.
        code: of the category; None for the whole text.
    """
    stance, text = "", policy.text
    if code is not None:
        category = policy.taxonomy.category(code)
        if category is None:
            return None
        stance = f"{code} {'violates' if category.violates else 'safe'}"
        text = section_text(policy, code)
    return hashlib.sha256(f"{stance}\0{text}".encode()).hexdigest()


def section_text(policy: Policy, code: str) -> str:
    """Return the part of a policy's text that gives a category its meaning; all of it where none names the category.

    These are the lines from the heading above a category's first mention up to the next heading of its level.
    """
    lines = [
        found.line
        for found in policy.taxonomy.found
        if found.what in ("category", "violates")
        and found.value == code
        and found.file == "policy.md"
        and found.line
    ]
    if not lines:
        return policy.text
    sections = read_sections(policy.text)
    at = max(n for n, section in enumerate(sections) if section.line <= min(lines))
    level = sections[at].level
    if not level:
        return policy.text
    end = next(
        (later.line for later in sections[at + 1 :] if later.level <= level),
        None,
    )
    begin = sections[at].line - 1
    return "\n".join(split_lines(policy.text)[begin : None if end is None else end - 1])
