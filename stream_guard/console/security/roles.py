"""Roles: what a person may do. Pure."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

__all__ = ["ROLE_NAMES", "Role"]


class Role(StrEnum):
    """A person has one role. ``READ_ONLY`` is a part of every other, and ``LEAD`` has all of them.

    The order here says which of several counts: the last.
    """

    READ_ONLY = "read-only"
    REVIEWER = "reviewer"
    AUTHOR = "author"
    LEAD = "lead"

    def includes(self, other: Role) -> bool:
        """Return whether a person of this role may do what needs the other one."""
        return self == other or self is Role.LEAD or other is Role.READ_ONLY


ROLE_NAMES: Final = tuple(str(role) for role in Role)
"""As a file of tokens writes them."""
