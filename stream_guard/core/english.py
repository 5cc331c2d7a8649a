"""Counts and suggestions in English. Pure."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["count_of", "did_you_mean"]


def count_of(count: int, one: str, many: str = "") -> str:
    """Return a count and its noun: ``1 post``, ``2 posts``, ``0 posts``. ``many`` is the plural that takes no s."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `` (did you mean NAME?)`` for the known name that is most similar, or nothing."""
    by_case = {each.casefold(): each for each in known}
    found = get_close_matches(name.casefold(), list(by_case), n=1)
    return f" (did you mean {by_case[found[0]]}?)" if found else ""
