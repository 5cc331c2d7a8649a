"""Says which decisions count: not those that were taken back, nor the records that take them back."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import and_, exists

from stream_guard.offline.review.store import decisions

__all__ = ["UNDO", "standing"]

UNDO: Final = "undo-"
"""What the id of a record begins with that takes a decision back; the decision's id follows."""


def standing() -> Any:  # noqa: ANN401 - an SQL expression
    """Return the condition for decisions that were not taken back, and take nothing back."""
    undos = decisions.alias()
    undone = exists().where(
        undos.c.id == UNDO + decisions.c.id, undos.c.reviewer == decisions.c.reviewer
    )
    return and_(~decisions.c.id.startswith(UNDO, autoescape=True), ~undone)
