"""Which offset of a partition may be committed. Pure: no clock, no I/O.

Records are *received* in offset order, with gaps (compaction, transaction markers),
and *finished* in any order. The position that may be committed is the lowest received offset that is not
finished, or one past the last received where all are. A partition that is lost and gained again starts a
new *epoch* with a new tracker, and what belongs to an old one can no longer move any position.

A position never passes a record that still owes something.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from stream_guard.core.kafka_types import Partition


class PartitionOffsets:
    """One partition's offsets in one epoch of its assignment.

    Attributes:
        partition: which.
        epoch: grows with every assignment, over all partitions.
        revoked: set when the partition is lost; nothing is committed from then on.
        committed: the position last committed in this epoch, at first where reading began; None before.
    """

    __slots__ = (
        "_finished",
        "_last",
        "_next",
        "_pending",
        "committed",
        "epoch",
        "partition",
        "revoked",
    )

    def __init__(self, partition: Partition, epoch: int) -> None:
        self.partition = partition
        self.epoch = epoch
        self.revoked = False
        self.committed: int | None = None
        self._pending: deque[int] = deque()
        self._finished: set[int] = set()
        self._last: int | None = None
        self._next: int | None = None  # past ``_last``, and past what holds no records after it

    def receive(self, offsets: Iterable[int]) -> None:
        """Note records received, in offset order.

        Raises:
            ValueError: an offset is not above the one before; the caller has lost track.
        """
        last = self._last
        pending = self._pending
        for offset in offsets:
            if self.committed is None:
                self.committed = offset  # where reading began: committing it again says nothing
            if last is not None and offset <= last:
                message = f"{self.partition}: offset {offset} received after {last}"
                raise ValueError(message)
            pending.append(offset)
            last = offset
        self._last = last
        self._next = None if last is None else last + 1

    def begin_at(self, position: int) -> None:
        """Note where the first record of this epoch lies, if that is before the position reading was to begin at.

        A topic that was deleted and created again has fewer records than the group has committed.
        """
        assert self._last is None, "the first record comes once"
        if self._next is not None and position < self._next:
            self._next = self.committed = None

    def pass_to(self, position: int) -> None:
        """Note that everything below was read: between the last record received and here there is none.

        Brokers keep offsets without records: transaction markers, aborted records, and compacted ones.

        Args:
            position: the next offset to read; one that is not ahead changes nothing.
        """
        if self.committed is None:
            self.committed = position  # where reading began
        if self._next is None or position > self._next:
            self._next = position

    def finish(self, offset: int) -> None:
        """Note that a record owes nothing any more: all its verdicts, or its dead letter, are acknowledged."""
        finished = self._finished
        pending = self._pending
        finished.add(offset)
        while pending and pending[0] in finished:
            finished.remove(pending.popleft())

    def position(self) -> int | None:
        """Return the next offset to read that may be committed; None where nothing was received yet."""
        if self._pending:
            return self._pending[0]
        return self._next

    def committable(self) -> int | None:
        """Return a position that is worth a commit: new, and of a partition that is still ours."""
        position = self.position()
        if self.revoked or position is None or position == self.committed:
            return None
        return position

    def settled(self, ready: Container[int], count_max: int) -> list[int]:
        """Return the longest run of unfinished offsets at the head that are all in ``ready``, up to ``count_max``."""
        head: list[int] = []
        for offset in self._pending:
            if len(head) == count_max or offset not in ready:
                break
            head.append(offset)
        return head

    def position_after(self, count: int) -> int:
        """Return what :meth:`position` will be once the first ``count`` pending offsets are finished."""
        if count < len(self._pending):
            return self._pending[count]
        assert self._next is not None, "something was received"
        return self._next

    @property
    def last(self) -> int | None:
        """The highest offset received; None before any."""
        return self._last

    @property
    def next_offset(self) -> int | None:
        """The next offset to read; None where nothing was read."""
        return self._next

    @property
    def unfinished(self) -> int:
        """Records received and not finished."""
        return len(self._pending) - len(self._finished)

    @property
    def span(self) -> int:
        """Records between the head and the newest, finished ones among them."""
        return len(self._pending)
