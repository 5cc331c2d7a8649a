"""Finds the times in which a partition had records to judge and finished none. Pure."""

from __future__ import annotations

import itertools
from collections import defaultdict
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tests.soak.facts import Fault, History

_SHORT_MS: Final = 100  # a pause of no interest, whatever the fault


class Stall(NamedTuple):
    """One partition had records to judge, and finished none from ``begin_ms`` until ``end_ms``."""

    partition: int
    begin_ms: int
    end_ms: int


def stalls(
    arrived_ms: Sequence[int], done_ms: Sequence[int], *, partition: int, ended_ms: int
) -> list[Stall]:
    """Return the times in which there were records to judge and none was finished.

    Args:
        arrived_ms: when each record was appended to the input.
        done_ms: when each was done, in the same order.
        partition: for the result.
        ended_ms: until when was looked; what was never done stalls until then.
    """
    events = sorted(
        itertools.chain(
            ((time, 1) for time in arrived_ms),
            (
                (min(max(arrived, time), ended_ms), -1)
                for arrived, time in zip(arrived_ms, done_ms, strict=True)
            ),
        ),
        key=lambda event: (event[0], -event[1]),
    )
    found: list[Stall] = []
    pending, since = 0, 0
    for time, change in events:
        if change > 0:
            since = since if pending else time
        else:
            if time - since >= _SHORT_MS:
                found.append(Stall(partition, since, time))
            since = time
        pending += change
    return found


def stalls_by_fault(
    history: History,
    arrived_ms: Mapping[tuple[int, int], int],
    done_ms: Mapping[tuple[int, int], int],
) -> list[float]:
    """Return per fault the longest time for which a partition with work finished nothing, in s.

    Args:
        history: for its faults, and for its end.
        arrived_ms: when each record (partition, offset) was appended to the input.
        done_ms: when each record that is owed something was finished.
    """
    by_partition: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for place, time in done_ms.items():
        by_partition[place[0]].append((arrived_ms[place], time))
    every = [
        stall
        for partition, times in by_partition.items()
        for stall in stalls(
            [arrived for arrived, _ in times],
            [time for _, time in times],
            partition=partition,
            ended_ms=history.ended_ms,
        )
    ]
    begins_ms = [fault.begin_ms for fault in history.faults] + [history.ended_ms]
    return [
        _longest_ms(fault, until_ms, every) / 1_000
        for fault, until_ms in zip(history.faults, begins_ms[1:], strict=True)
    ]


def _longest_ms(fault: Fault, until_ms: int, every: Iterable[Stall]) -> int:
    """Return the longest stall from a fault on, of those that touch the time until the next fault; in ms."""
    return max(
        (
            stall.end_ms - max(stall.begin_ms, fault.begin_ms)
            for stall in every
            if stall.end_ms > fault.begin_ms and stall.begin_ms < until_ms
        ),
        default=0,
    )
