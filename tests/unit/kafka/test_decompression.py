"""A small compressed batch cannot take much memory, and no record of it is lost without a word."""

from __future__ import annotations

import struct
import tracemalloc
from typing import TYPE_CHECKING

import pytest
from aiokafka.errors import CorruptRecordException
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c

from stream_guard.core.errors import TooLargeError
from stream_guard.core.kafka_types import OversizedValue
from stream_guard.kafka import decompression
from stream_guard.kafka.record_decoding import TolerantRecords
from stream_guard.records.post import PostParser
from stream_guard.settings import PostSettings
from tests.batches import batch_builder

if TYPE_CHECKING:
    from collections.abc import Sequence

MIB = 1 << 20
CODECS = {"gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
STREAMS = {name: code for name, code in CODECS.items() if name != "snappy"}


def batch(values: Sequence[bytes], compression: int, *, first: int = 100) -> bytes:
    """Return a batch of these values, compressed."""
    builder = batch_builder(compression, 1 << 30)
    for number, value in enumerate(values):
        builder.append(number, 1_000 + number, b"k", value, [("h", b"x")])
    data = bytearray(builder.build())
    data[0:8] = struct.pack(">q", first)
    return bytes(data)


def read(fetched: bytes) -> list[tuple[int, int, bytes]]:
    records, found = TolerantRecords(fetched), []
    while records.has_next():
        each = records.next_batch()
        assert each is not None
        assert each.validate_crc()
        found += [(record.offset, record.timestamp, record.value) for record in each]
    return found


@pytest.mark.parametrize("compression", CODECS)
def test_a_batch_of_several_pieces_is_read_whole_and_in_order(compression: str) -> None:
    values = [bytes([65 + n % 26]) * (300_000 + n) for n in range(60)]
    fetched = batch(values, CODECS[compression])
    assert len(fetched) < 18 * MIB
    assert read(fetched) == [(100 + n, 1_000 + n, value) for n, value in enumerate(values)]


@pytest.mark.parametrize("compression", CODECS)
def test_a_record_longer_than_a_piece_is_read(compression: str) -> None:
    values = [b"a", b"b" * (6 * MIB), b"c"]
    assert [value for *_, value in read(batch(values, CODECS[compression]))] == values


@pytest.mark.parametrize("compression", CODECS)
def test_a_record_over_the_limit_is_named_and_those_around_it_are_read(compression: str) -> None:
    size = decompression.RECORD_BYTES_MAX + 1
    found = read(batch([b"before", b"x" * size, b"after"], CODECS[compression]))
    assert [(offset, at) for offset, at, _ in found] == [(100, 1_000), (101, 1_001), (102, 1_002)]
    assert [value for *_, value in found] == [b"before", b"", b"after"]
    long = found[1][2]
    assert isinstance(long, OversizedValue)
    assert long.size_bytes is not None
    assert size < long.size_bytes < size + 100


@pytest.mark.parametrize("compression", STREAMS)
def test_expanding_ends_at_the_bound_and_the_rest_is_named(
    compression: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decompression, "BATCH_EXPANDED_BYTES_MAX", 9 * MIB)
    found = read(batch([bytes([n]) * (2 * MIB) for n in range(12)], CODECS[compression]))
    assert [offset for offset, *_ in found] == [100 + n for n in range(12)]
    kept = [value for *_, value in found if not isinstance(value, OversizedValue)]
    assert kept == [bytes([n]) * (2 * MIB) for n in range(4)]
    assert {value.size_bytes for *_, value in found if isinstance(value, OversizedValue)} == {None}


@pytest.mark.parametrize("compression", STREAMS)
def test_a_bomb_takes_little_memory(compression: str) -> None:
    fetched = batch([b"x" * (96 * MIB)], CODECS[compression])
    tracemalloc.start()
    try:
        found = read(fetched)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(found[0][2], OversizedValue)
    assert peak_bytes < decompression.RECORD_BYTES_MAX + 4 * decompression.PIECE_BYTES


def test_aiokafka_itself_expands_all_of_it() -> None:
    records = list(MemoryRecords(batch([b"x" * (32 * MIB)], CODECS["zstd"])).next_batch())
    assert len(records[0].value) == 32 * MIB


@pytest.mark.parametrize("compression", CODECS)
def test_bytes_that_do_not_expand_are_an_error_of_the_batch(compression: str) -> None:
    data = bytearray(batch([b"one", b"two" * 100], CODECS[compression]))
    del data[-9:]
    data[8:12] = struct.pack(">i", len(data) - 12)
    data[17:21] = struct.pack(">I", calc_crc32c(bytes(data[21:])))
    with pytest.raises(CorruptRecordException):
        read(bytes(data))


def test_its_post_is_too_large() -> None:
    parser = PostParser(PostSettings())
    with pytest.raises(TooLargeError, match="17000000 bytes when expanded; at most 16777216"):
        parser.parse(OversizedValue(17_000_000, decompression.RECORD_BYTES_MAX), ())
    with pytest.raises(TooLargeError, match="more bytes"):
        parser.parse(OversizedValue(None, decompression.RECORD_BYTES_MAX), ())
