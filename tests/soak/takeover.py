"""Measures takeovers: from a new generation of the group to each busy partition's next finished record. Pure.

A generation begins when its members get their partitions. By then a session that had to expire has expired, and what
remains is the program's own work: to end the last owner's transactions, to read positions, to read, to judge and to
write. Faults that keep brokers away from consumers count from their end, also those that begin before it is done.
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from typing import TYPE_CHECKING, Final

from tests.soak import schedule

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.soak.facts import Fault, History

TAKEOVER_S_MAX: Final = 10.0
_HOLDING: Final = frozenset(
    {
        *schedule.BROKER_KINDS,
        *schedule.NETWORK_KINDS,
        schedule.LEADERLESS,
        schedule.DISK_FULL,
        schedule.REVOKED,
        schedule.EXPIRED,
        schedule.RETENTION,
    }
)


def takeovers(
    history: History,
    arrived_ms: Mapping[tuple[int, int], int],
    done_ms: Mapping[tuple[int, int], int],
) -> list[float | None]:
    """Return the longest takeover after each fault, until the next one, in s; None if no generation began with work.

    Args:
        history: for its faults and its generations.
        arrived_ms: when each record (partition, offset) was appended to the input.
        done_ms: when each record that is owed something was finished.
    """
    work: dict[int, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for place, time in done_ms.items():
        arrived, done = work[place[0]]
        arrived.append(arrived_ms[place])
        done.append(max(arrived_ms[place], min(time, history.ended_ms)))
    for arrived, done in work.values():
        arrived.sort()
        done.sort()
    begins_ms = [fault.begin_ms for fault in history.faults] + [history.ended_ms]
    return [
        _longest_s(fault, until_ms, history, work)
        for fault, until_ms in zip(history.faults, begins_ms[1:], strict=True)
    ]


def _longest_s(
    fault: Fault, until_ms: int, history: History, work: Mapping[int, tuple[list[int], list[int]]]
) -> float | None:
    found: list[float] = []
    for generation in history.generations:
        if not fault.begin_ms <= generation.at_ms < until_ms:
            continue
        for arrived, done in work.values():
            finished = bisect.bisect_right(done, generation.at_ms)
            if bisect.bisect_right(arrived, generation.at_ms) > finished:
                since = _free_ms(generation.at_ms, done[finished], history.faults)
                found.append(max(0, done[finished] - since) / 1_000)
    return max(found, default=None)


def _free_ms(since: int, done: int, faults: Sequence[Fault]) -> int:
    """Return the end of the last fault that kept brokers away between two times, or the first time; in ms."""
    return max(
        (f.end_ms for f in faults if f.kind in _HOLDING and since < f.end_ms and f.begin_ms < done),
        default=since,
    )
