"""Findings about lanes: goals, quotas and limits that cannot hold together. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from stream_guard.judging.engine.fair_waiting import QUANTUM_TOKENS
from stream_guard.judging.lanes.bounds import wait_bound
from stream_guard.service.diagnostics.topic_advice import Advice
from stream_guard.stream.admission import BYTES_PER_TOKEN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_guard.policies.lanes import Lane, Lanes
    from stream_guard.settings import Settings

__all__ = ["advise_lanes"]

_OVER: Final = 2


def advise_lanes(lanes: Lanes, settings: Settings) -> Iterator[Advice]:
    """Yield the findings about lanes, or one line for each lane that nothing is wrong with.

    Args:
        lanes: of ``routes.yaml``.
        settings: ``lanes.engine_tokens_per_s`` is the measured capacity; without it, goals are not examined.
    """
    for lane in lanes.all:
        found = [*_goal(lane, lanes, settings), *_quotas(lane, lanes, settings)]
        yield from found
        if not found:
            share = f"{lanes.share(lane):.0%} of all weights"
            yield Advice(f"lane {lane.name}", "ok", f"weight {lane.weight:g}: {share}")
    if lanes:
        yield from _limits(lanes, settings)


def _rate(lane: Lane, lanes: Lanes, capacity: float) -> float:
    """Return what a lane gets while all lanes of its class have work, in tokens/s."""
    weights = sum(one.weight for one in lanes.all if one.backfill == lane.backfill)
    return capacity * lane.weight / weights


def _goal(lane: Lane, lanes: Lanes, settings: Settings) -> Iterator[Advice]:
    name, capacity = f"lane {lane.name}", settings.lanes.engine_tokens_per_s
    if lane.goal_s is None:
        return
    if lane.backfill:
        detail = f"goal_s is {lane.goal_s:g}, and class backfill waits for all live lanes without a limit"
        yield Advice(name, "warning", detail, "remove goal_s, or make it a live lane of low weight")
        return
    if capacity is None:
        detail = "its goal was not examined: lanes.engine_tokens_per_s is not set"
        remedy = "set it to the highest rate(stream_guard_lane_tokens_total[5m]), summed over lanes, of one process"
        yield Advice(name, "warning", detail, remedy)
        return
    largest = settings.post.max_text_bytes // BYTES_PER_TOKEN + settings.engine.reasoning_tokens_max
    turn = wait_bound(lane, lanes.all, quantum=QUANTUM_TOKENS, cost_max=largest)
    own_s = largest / _rate(lane, lanes, capacity)
    worst_s = turn / capacity + own_s
    if worst_s > lane.goal_s:
        detail = (
            f"goal_s is {lane.goal_s:g}, and while all lanes have work its largest post may take {worst_s:,.1f} s "
            f"at {capacity:,.0f} tokens/s"
        )
        remedy = "raise its weight or goal_s, lower post.max_text_bytes, or add replicas"
        yield Advice(name, "warning", detail, remedy)


def _quotas(lane: Lane, lanes: Lanes, settings: Settings) -> Iterator[Advice]:
    capacity = settings.lanes.engine_tokens_per_s
    promised = sum(one.quota.tokens_per_s for one in lane.tenants.values() if one.quota is not None)
    if capacity is None or not promised:
        return
    rate = _rate(lane, lanes, capacity)
    if promised > rate:
        detail = (
            f"its named tenants have quotas of {promised:,.0f} tokens/s together, and the lane gets "
            f"{rate:,.0f} while all lanes have work"
        )
        remedy = "lower the quotas, raise the lane's weight, or add replicas"
        yield Advice(f"lane {lane.name}", "warning", detail, remedy)


def _limits(lanes: Lanes, settings: Settings) -> Iterator[Advice]:
    total = settings.batching.in_flight_records_max
    held = sum(_OVER * lane.limits.records for lane in lanes.all if lane.limits.records is not None)
    if held > total:
        yield Advice(
            "lanes",
            "warning",
            f"full lanes may have {held:,} records in flight, and all together {total:,} may be: one can keep the "
            "others from being read",
            f"raise batching.in_flight_records_max to {held:,}, or lower limits.records",
        )
