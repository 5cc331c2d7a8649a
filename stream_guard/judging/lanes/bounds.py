"""The bounds that hold among lanes, whatever arrives. Pure; see docs/explanation/lanes.md for why."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stream_guard.policies.lanes import Lane

__all__ = ["gap_bound", "wait_bound"]


def gap_bound(first: Lane, second: Lane, *, quantum: float, cost_max: float) -> float:
    """Return how far two lanes with work may differ, in tokens over weight.

    Args:
        first: a lane.
        second: another one of its class.
        quantum: tokens of a round for a lane of weight 1.
        cost_max: tokens of the largest request.
    """
    return 2 * quantum + cost_max / first.weight + cost_max / second.weight


def wait_bound(lane: Lane, others: Iterable[Lane], *, quantum: float, cost_max: float) -> float:
    """Return the most that other lanes get while a lane with work gets nothing, in tokens.

    Args:
        lane: which waits.
        others: all lanes; those of another class do not count.
        quantum: tokens of a round for a lane of weight 1.
        cost_max: tokens of the largest request.
    """
    return sum(
        2 * one.weight * (cost_max / lane.weight + quantum) + cost_max
        for one in others
        if one.name != lane.name and one.backfill == lane.backfill
    )
