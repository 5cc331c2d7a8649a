"""Decompresses record batches piece by piece, so that a small batch cannot take much memory. Pure.

A batch of 29 kB can hold 900 MB. aiokafka expands a whole batch at once. Here a batch is read through a stream. What
fits into one piece becomes one uncompressed batch; a longer one becomes several, cut between records. A record that is
too long, or that stands behind too many expanded bytes, is not kept: a :class:`LongRecord` takes its place.

Source of the format: Kafka's documentation of record batches, magic 2 (KIP-98); older batches are left to aiokafka.
"""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import cramjam
import lz4.frame
import zstandard
from aiokafka.errors import CorruptRecordException

from stream_guard.core.kafka_types import OversizedValue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = [
    "BATCH_EXPANDED_BYTES_MAX",
    "PIECE_BYTES",
    "RECORD_BYTES_MAX",
    "LongRecord",
    "expand_batch",
]

PIECE_BYTES: Final = 4 << 20
"""Expanded bytes that are held for one batch, as long as no record is longer."""
RECORD_BYTES_MAX: Final = 16 << 20
"""The longest record of a compressed batch, with its key and headers, expanded."""
BATCH_EXPANDED_BYTES_MAX: Final = 256 << 20
"""How far a batch is expanded in all; the records behind are not read."""
_PART_BYTES: Final = 256 << 10
_HEADER: Final = struct.Struct(">qiibIhiqqqhii")
_CODECS: Final = 0x07
_LOG_APPEND_TIME: Final = 0x08
_LENGTH, _ATTRIBUTES, _RECORDS = 8, 21, 57
_BEFORE_LENGTH_BYTES: Final = 12
_VARINT_BYTES_MAX: Final = 10
# A window of zstd that no client of Kafka exceeds: 128 MiB is the largest of its levels.
_WINDOW_BYTES_MAX: Final = 128 << 20
_BROKEN: Final = (
    # What the libraries raise, and what wrong numbers in the batch lead to.
    *(zlib.error, zstandard.ZstdError, cramjam.DecompressionError),
    *(ValueError, LookupError, EOFError, OSError, RuntimeError, struct.error),
)
_XERIAL: Final = b"\x82SNAPPY\x00"
_XERIAL_HEADER_BYTES: Final = 16


@dataclass(slots=True, frozen=True)
class LongRecord:
    """A record that was not kept; it has the attributes that aiokafka reads of one."""

    offset: int
    timestamp: int
    timestamp_type: int
    value: OversizedValue
    key: None = None
    checksum: None = None
    headers: tuple[()] = ()


def expand_batch(batch: memoryview) -> Iterator[bytes | LongRecord]:
    """Yield the records of a compressed batch, in order: uncompressed batches, and what stands for longer records.

    Args:
        batch: one batch, magic 2, with its header. Its checksum is not looked at, nor is that of what is yielded.

    Raises:
        CorruptRecordException: the compressed bytes or the lengths in them are wrong.
    """
    try:
        yield from _Expansion(batch).run()
    except _BROKEN as error:
        message = f"a compressed batch cannot be read: {type(error).__name__}"
        raise CorruptRecordException(message) from error


class _Expansion:
    """One batch on its way."""

    def __init__(self, batch: memoryview) -> None:
        fields = _HEADER.unpack_from(batch)
        self._header = bytes(batch[: _HEADER.size])
        self._base_offset, attributes, self._last_delta = fields[0], fields[5], fields[6]
        self._first_timestamp, self._max_timestamp = fields[7], fields[8]
        self._appended = bool(attributes & _LOG_APPEND_TIME)
        self._left = fields[12]
        self._stream = _OPENERS[attributes & _CODECS](batch[_HEADER.size :])
        self._buffer = bytearray()
        self._expanded_bytes = 0

    def run(self) -> Iterator[bytes | LongRecord]:
        """Yield all of it."""
        self._read(PIECE_BYTES)
        if len(self._buffer) < PIECE_BYTES:
            yield self._batch(self._buffer, self._left)
            return
        while self._left > 0:
            end, count = self._whole_records()
            if count:
                yield self._batch(self._buffer[:end], count)
                del self._buffer[:end]
                self._left -= count
                continue
            length, start = self._length(0)
            if length > RECORD_BYTES_MAX:
                yield self._skip(start, length)
            elif start + length > len(self._buffer) and not self._read(
                max(PIECE_BYTES, start + length - len(self._buffer))
            ):
                if self._expanded_bytes < BATCH_EXPANDED_BYTES_MAX:
                    message = "it ends within a record"
                    raise ValueError(message)
                yield from self._rest()
        if self._buffer or (self._expanded_bytes < BATCH_EXPANDED_BYTES_MAX and self._read(1)):
            message = "bytes follow the last record"
            raise ValueError(message)

    def _read(self, count: int) -> int:
        """Read up to so many bytes into the buffer, and return how many there were; 0 at the end, or at the bound."""
        wanted = min(count, BATCH_EXPANDED_BYTES_MAX - self._expanded_bytes)
        got = 0
        while got < wanted and (part := self._stream.read(min(_PART_BYTES, wanted - got))):
            self._buffer += part
            got += len(part)
        self._expanded_bytes += got
        return got

    def _whole_records(self) -> tuple[int, int]:
        """Return the end of the last whole record in the buffer, and how many whole ones there are."""
        end = count = 0
        size = len(self._buffer)
        while count < self._left and end < size:
            found = _varint(self._buffer, end)
            if found is None or found[1] + found[0] > size:
                break
            end = found[0] + found[1]
            count += 1
        return end, count

    def _length(self, at: int) -> tuple[int, int]:
        """Return the length of the record that begins here, and where its content begins."""
        found = _varint(self._buffer, at)
        while found is None:
            if len(self._buffer) >= at + _VARINT_BYTES_MAX or not self._read(PIECE_BYTES):
                message = "a record's length is no number"
                raise ValueError(message)
            found = _varint(self._buffer, at)
        if found[0] < 0:
            message = "a record's length is negative"
            raise ValueError(message)
        return found

    def _skip(self, start: int, length: int) -> LongRecord:
        """Drop the record at the front of the buffer."""
        while len(self._buffer) < start + 2 * _VARINT_BYTES_MAX + 1 and self._read(PIECE_BYTES):
            pass
        # After the length: one byte of attributes, then the deltas of time and offset.
        time_delta = _varint(self._buffer, start + 1)
        offset_delta = None if time_delta is None else _varint(self._buffer, time_delta[1])
        if time_delta is None or offset_delta is None:
            message = "a record's head is cut"
            raise ValueError(message)
        missing = start + length - len(self._buffer)
        del self._buffer[: start + length]
        while missing > 0:
            got = self._read(min(missing, PIECE_BYTES))
            self._buffer.clear()
            if not got:
                break
            missing -= got
        self._left -= 1
        return self._long(offset_delta[0], time_delta[0], length)

    def _rest(self) -> Iterator[LongRecord]:
        """Yield a stand-in for every record that is left; their offsets are the last ones of the batch."""
        self._buffer.clear()
        for delta in range(self._last_delta - self._left + 1, self._last_delta + 1):
            yield self._long(delta, 0, None)
        self._left = 0

    def _long(self, offset_delta: int, time_delta: int, size_bytes: int | None) -> LongRecord:
        return LongRecord(
            self._base_offset + offset_delta,
            self._max_timestamp if self._appended else self._first_timestamp + time_delta,
            int(self._appended),
            OversizedValue(size_bytes, RECORD_BYTES_MAX),
        )

    def _batch(self, records: bytearray, count: int) -> bytes:
        """Return an uncompressed batch of these records."""
        header = bytearray(self._header)
        struct.pack_into(">i", header, _LENGTH, len(header) + len(records) - _BEFORE_LENGTH_BYTES)
        header[_ATTRIBUTES + 1] &= ~_CODECS
        struct.pack_into(">i", header, _RECORDS, count)
        return bytes(header + records)


def _varint(buffer: bytearray, at: int) -> tuple[int, int] | None:
    """Return the zigzag number that begins here, and where it ends; None where the buffer ends before."""
    value = shift = 0
    for position in range(at, min(len(buffer), at + _VARINT_BYTES_MAX)):
        byte = buffer[position]
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return (value >> 1) ^ -(value & 1), position + 1
        shift += 7
    return None


def _open_gzip(data: memoryview) -> gzip.GzipFile:
    return gzip.GzipFile(fileobj=io.BytesIO(data))


def _open_lz4(data: memoryview) -> Any:  # noqa: ANN401 - a stream of the library, which ships no types
    return lz4.frame.LZ4FrameFile(io.BytesIO(data))


def _open_zstd(data: memoryview) -> Any:  # noqa: ANN401 - a stream of the library
    decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES_MAX)
    return decompressor.stream_reader(io.BytesIO(data), read_across_frames=True)


class _Snappy(io.RawIOBase):
    """Snappy, as blocks of xerial's form or as one raw block; a block expands to 21 times its length at most."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._xerial = bytes(data[: len(_XERIAL)]) == _XERIAL
        self._at = _XERIAL_HEADER_BYTES if self._xerial else 0
        self._block = b""

    def read(self, size: int = -1, /) -> bytes:
        """Return up to ``size`` bytes."""
        while not self._block and self._at < len(self._data):
            end = len(self._data)
            if self._xerial:
                begin = self._at + 4
                end = begin + int.from_bytes(self._data[self._at : begin])
                self._at = begin
            self._block = bytes(cramjam.snappy.decompress_raw(self._data[self._at : end]))
            self._at = end
        part, self._block = self._block[:size], self._block[size:]
        return part


_OPENERS: Final[Mapping[int, Callable[[memoryview], Any]]] = {
    1: _open_gzip,
    2: _Snappy,
    3: _open_lz4,
    4: _open_zstd,
}
