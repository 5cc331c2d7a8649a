r"""Decodes fetched records where aiokafka cannot, or would take too much memory.

Compressed batches are expanded by :mod:`stream_guard.kafka.decompression`, piece by piece.

Kafka requires header names in UTF-8, and no broker checks it. aiokafka raises an error at an invalid name, reads the
same batch again, and raises again. One such record, which a client in C can write, would stop every consumer of its
partition. So aiokafka's fetcher gets batches that fall back on its slow decoder, with invalid bytes written as escapes
(``\xff``); Java clients replace them as well. No record is skipped, and valid names stay unchanged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatch, _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords

from stream_guard.kafka.decompression import LongRecord, expand_batch
from stream_guard.kafka.poll_bytes import BoundedFetchResult

if TYPE_CHECKING:
    from collections.abc import Iterator

_LENGTH: Final = slice(8, 12)  # of a batch, after its base offset; counted from its own end
_OVERHEAD_BYTES: Final = 12
_MAGIC: Final = 2  # of batches with headers; only topics of Kafka before 0.11 hold others


def use_own_decoder() -> None:
    """Let every consumer of this process decode records so; a second call changes nothing."""
    assert fetcher.MemoryRecords in (MemoryRecords, TolerantRecords), (
        "this code depends on aiokafka 0.14"
    )
    fetcher.MemoryRecords = TolerantRecords
    fetcher.FetchResult = BoundedFetchResult


class TolerantRecords:
    """aiokafka's ``MemoryRecords`` of one fetched partition, with tolerant batches.

    Args:
        fetched: the bytes of whole batches, the last one may be truncated.
    """

    def __init__(self, fetched: bytes) -> None:
        self._records = MemoryRecords(fetched)
        self._fetched = fetched
        self._at = 0

    def size_in_bytes(self) -> int:
        """Return the bytes that were fetched."""
        return len(self._fetched)

    def has_next(self) -> bool:
        """Return whether there is another whole batch."""
        return bool(self._records.has_next())

    def next_batch(self) -> TolerantBatch | None:
        """Return the next batch; None after the last."""
        batch = self._records.next_batch()
        if batch is None:
            return None
        length = int.from_bytes(self._fetched[self._at : self._at + _OVERHEAD_BYTES][_LENGTH])
        start, self._at = self._at, self._at + _OVERHEAD_BYTES + length
        return TolerantBatch(batch, self._fetched, start, self._at)


class TolerantBatch:
    """One batch: aiokafka's own, except for records that it cannot decode."""

    def __init__(self, batch: Any, fetched: bytes, start: int, end: int) -> None:  # noqa: ANN401 - of aiokafka
        self._batch = batch
        self._fetched = fetched
        self._start = start
        self._end = end

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the batch has
        return getattr(self._batch, name)

    def __next__(self) -> Any:  # noqa: ANN401 - a record of aiokafka; this is how control batches are read
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        own = memoryview(self._fetched)[self._start : self._end]
        if self._batch.magic < _MAGIC or not self._batch.compression_type:
            yield from _tolerant(self._batch, own)
            return
        for part in expand_batch(own):
            if isinstance(part, LongRecord):
                yield part
            else:
                yield from _tolerant(DefaultRecordBatch(part), memoryview(part))


def _tolerant(batch: Any, own: memoryview) -> Iterator[Any]:  # noqa: ANN401 - of aiokafka
    """Yield a batch's records; ``own`` holds its bytes."""
    last = -1
    try:
        for record in batch:
            last = record.offset
            yield record
    except (UnicodeDecodeError, CorruptRecordException):
        whole = _TolerantBatchPy(own)
    else:
        return
    for record in whole:
        if record.offset > last:
            yield record


class _TolerantBatchPy(_DefaultRecordBatchPy):  # type: ignore[misc] # aiokafka ships no types
    """aiokafka's Python batch, which reads from bytes that always decode."""

    def _maybe_uncompress(self) -> None:
        super()._maybe_uncompress()
        self._buffer: bytearray = _TolerantBytes(self._buffer)


class _TolerantBytes(bytearray):
    def __getitem__(self, index: Any) -> Any:  # noqa: ANN401 - an int or a slice, as bytearray's own
        found = super().__getitem__(index)
        return _TolerantBytes(found) if isinstance(found, bytearray) else found

    def decode(self, encoding: str = "utf-8", errors: str = "backslashreplace") -> str:
        return super().decode(encoding, errors)
