"""Counts in English. Pure."""

from __future__ import annotations

__all__ = ["count_of"]


def count_of(count: int, one: str, many: str = "") -> str:
    """Return a count and its noun: ``1 post``, ``2 posts``, ``0 posts``. ``many`` is the plural that takes no s."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
