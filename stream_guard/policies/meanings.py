"""Finds what the words beside a category say of it: whether its posts violate. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from stream_guard.policies.label_words import escalates, label_kind, label_stance
from stream_guard.policies.text import stance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.policies.text import Section

__all__ = ["LEAD_PARTS", "by_label", "first_stance", "lead_label", "meant", "plain_title"]

_PARTS: Final = re.compile(r"[|;,.:()]")
LEAD_PARTS: Final = re.compile(r"[:|;]|\s[-\u2013\u2014]\s|,\s")
_REST: Final = re.compile(
    r"^\W{0,3}(?:everything|anything|all)\s+else\b|^\W{0,3}(?:all|any)\s+other\b|^\W{0,3}none\s+of\s+the\b",
    re.IGNORECASE,
)
_OUTRIGHT_WORDS_MAX: Final = 3


def by_label(meaning: str, section: Section, line: int) -> tuple[bool | None, str, int]:
    """Return the stance of the label in an item, or else of the headings around it, with its origin and line."""
    if (lead := lead_label(meaning)) is not None:
        return lead, "label beside the meaning", line
    leaning = first_stance((section.title, *reversed(section.parents)))
    if leaning is None and escalates(meaning):
        return True, "sent to people", line
    return leaning, "enclosing heading", section.line


def lead_label(meaning: str) -> bool | None:
    """Return the stance of the label before a meaning, ``Remove: ...``, or after it, ``... - remove``."""
    parts = [part.strip("`*_ .") for part in LEAD_PARTS.split(meaning)]
    for part in (parts[0], parts[-1]) if len(parts) > 1 else ():
        if (leaning := label_stance(part)) is not None:
            return leaning
        if label_kind(part) is False:
            return True
    return None


def plain_title(title: str) -> str:
    """Return a title without marks: ``Remove**: sexual acts`` is "Remove: sexual acts"."""
    return title.replace("**", "").strip("*_. ")


def meant(meaning: str) -> bool | None:
    """Return the stance of a meaning; safe only where it says so outright.

    "Adverts; permitted once a week" does not; "Allowed discussion" and "News; allowed" do.
    """
    leaning = stance(meaning)
    if leaning is None and _REST.match(meaning) is not None:
        return False
    if leaning is not False:
        return leaning
    parts = [part.split() for part in _PARTS.split(meaning)]
    outright = stance(" ".join(parts[0][:2])) is False or any(
        len(part) <= _OUTRIGHT_WORDS_MAX and stance(" ".join(part)) is False for part in parts
    )
    return False if outright else None


def first_stance(titles: Sequence[str]) -> bool | None:
    """Return the stance of the first title that has one."""
    return next((leaning for title in titles if (leaning := stance(title)) is not None), None)
