"""What a bare policy text says about its own labels: categories, rule ids, and which violate. Pure.

Published policies have no front matter. They name their categories in headings (``ARS1 - Promotion``),
their rules in lists (``ARS1.a Encouragement``) and the label of each section on a line of its own
(``Output: `INVALID```). What cannot be read falls back to violates / safe.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

# A category is capital letters and digits, as in ARS0, DC2, H1; a rule is one with a dotted suffix.
_RULE: Final = re.compile(r"\b([A-Z]{1,8}\d{1,3})\.([a-z0-9]{1,3})\b")
_CATEGORY: Final = re.compile(r"\b([A-Z]{1,8}\d{1,3})\b(?!\.[a-z0-9])")
_HEADING: Final = re.compile(r"^#{1,6}\s+(.*)$", re.MULTILINE)
_DEFINED: Final = re.compile(
    r"^\s*(?:[-*+]|\d+[.)])?\s*[`*_\"']*([A-Z]{1,8}\d{1,3})[`*_\"']*\s*[:=\u2013\u2014-]\s*(.+)$",
    re.MULTILINE,
)
_OUTPUT: Final = re.compile(r"^\W*(?:output|label|verdict|answer)\W*:\W*(\w+)\W*$", re.IGNORECASE | re.MULTILINE)
_VIOLATES_WORDS: Final = frozenset({"invalid", "violates", "violation", "violating", "1", "yes", "true", "unsafe", "disallowed", "block"})
_SAFE_WORDS: Final = frozenset({"valid", "safe", "0", "no", "false", "allowed", "allow", "ok", "none"})
_SAFE_HEADING: Final = re.compile(r"\b(allowed|safe|permitted|not a violation|non-violating|acceptable)\b", re.IGNORECASE)


@dataclass(slots=True, frozen=True)
class Category:
    """One category: its code, what the text calls it, and whether it violates."""

    code: str
    title: str
    violates: bool


@dataclass(slots=True, frozen=True)
class Taxonomy:
    """What answers may name.

    Attributes:
        categories: in the text's order; empty where the text names none.
        rule_ids: in the text's order; each begins with its category's code and a dot.
        violates_label, safe_label: the words that the text itself uses.
    """

    categories: tuple[Category, ...] = ()
    rule_ids: tuple[str, ...] = ()
    violates_label: str = "violates"
    safe_label: str = "safe"

    def category(self, code: str) -> Category | None:
        """Return the category of this code, or None where the policy has none such."""
        return next((c for c in self.categories if c.code == code), None)
