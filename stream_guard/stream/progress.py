"""What the loop reports about itself: progress, and the head and lag of each partition. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from stream_guard.core.kafka_types import Partition

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stream_guard.core.kafka_types import Partition


class Head(NamedTuple):
    """The oldest unfinished record of a partition.

    Attributes:
        partition, offset: which.
        age_s: since it was read.
        held_back: finished records behind it, whose positions it keeps from being committed.
        trace_id: of the record, 32 hex digits, whether it is traced or not.
        patient: whether a lane of it has the class ``backfill``, so that its age says nothing.
    """

    partition: Partition
    offset: int
    age_s: float
    held_back: int
    trace_id: str | None = None
    patient: bool = False


class Progress(NamedTuple):
    """What moves, as counted at one moment.

    Attributes:
        turns: of the poll loop, since the start.
        finished: records, since the start.
        committed: successful commits, since the start.
        in_flight: records read and not finished.
        uncommitted: whether a position is due to be committed.
        oldest_s: age of the oldest record in flight that is not patient; 0 for none.
        engine_ready: whether posts can be judged at all.
    """

    turns: int
    finished: int
    committed: int
    in_flight: int
    uncommitted: bool
    oldest_s: float
    engine_ready: bool


class Standing(NamedTuple):
    """Where a partition stands.

    Attributes:
        partition: which.
        behind: records between the first that is not finished and the newest that is known of; None where no end
            is known yet.
        oldest_ns: when the oldest unfinished record that was read was written, Unix time in ns; None where all
            that was read is finished.
    """

    partition: Partition
    behind: int | None
    oldest_ns: int | None
