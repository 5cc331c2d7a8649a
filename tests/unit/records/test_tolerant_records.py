"""Records with header names that are not UTF-8 are read, and all others as aiokafka reads them."""

from __future__ import annotations

import struct

import pytest
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c

from stream_guard.kafka.record_decoding import TolerantRecords, use_own_decoder
from tests.batches import batch_builder

COMPRESSIONS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
RAW = b"\xff\xfe"


def batch(first: int, count: int, compression: int = 0, bad: int | None = None) -> bytes:
    """Return a batch's bytes; the header of record ``bad`` has a name that is not UTF-8."""
    builder = batch_builder(compression)
    for number in range(count):
        # The compressors are kept from the name, so that it can be exchanged in what they made.
        name = "zz" if number == bad else "ok"
        headers = [(name, b"value"), ("null", None)]
        builder.append(number, 1_000 + number, b"k%d" % number, b"v%d" % number, headers)
    data = bytearray(builder.build())
    data[0:8] = struct.pack(">q", first)
    if bad is not None:
        at = data.index(b"zz")
        data[at : at + 2] = RAW
        data[17:21] = struct.pack(">I", calc_crc32c(bytes(data[21:])))
    return bytes(data)


def read(fetched: bytes) -> list[tuple[int, bytes, bytes, list[tuple[str, bytes | None]]]]:
    records, found = TolerantRecords(fetched), []
    while records.has_next():
        each = records.next_batch()
        assert each is not None
        assert each.validate_crc()
        found += [(r.offset, r.key, r.value, list(r.headers)) for r in each]
    assert records.next_batch() is None
    return found


def test_aiokafka_itself_cannot_read_it() -> None:
    with pytest.raises(UnicodeDecodeError):
        list(MemoryRecords(batch(0, 1, bad=0)).next_batch())


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_a_name_that_is_not_utf_8_is_written_out_and_no_record_is_missing(bad: int) -> None:
    found = read(batch(10, 3, bad=bad))
    assert [(offset, key, value) for offset, key, value, _ in found] == [
        (10 + n, b"k%d" % n, b"v%d" % n) for n in range(3)
    ]
    names = ["ok", "ok", "ok"]
    names[bad] = r"\xff\xfe"
    assert [headers for *_, headers in found] == [
        [(name, b"value"), ("null", None)] for name in names
    ]


def test_batches_before_and_after_it_are_read() -> None:
    found = read(batch(0, 2) + batch(2, 3, bad=1) + batch(5, 2))
    assert [offset for offset, *_ in found] == list(range(7))


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_other_batches_are_as_aiokafka_reads_them(compression: str) -> None:
    fetched = batch(0, 50, COMPRESSIONS[compression]) + batch(50, 1)[:-1]  # the last is cut off
    plain = list(MemoryRecords(fetched).next_batch())
    assert read(fetched) == [(r.offset, r.key, r.value, list(r.headers)) for r in plain]
    assert TolerantRecords(fetched).size_in_bytes() == len(fetched)


def test_what_is_truly_broken_is_still_an_error() -> None:
    data = bytearray(batch(0, 1))
    data[-1] ^= 0x7F  # more headers than there are, or longer ones
    data[61] ^= 0x7F
    with pytest.raises(CorruptRecordException):
        list(TolerantRecords(bytes(data)).next_batch() or ())


def test_the_fetcher_takes_it_once_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetcher, "MemoryRecords", MemoryRecords)
    use_own_decoder()
    use_own_decoder()
    assert fetcher.MemoryRecords is TolerantRecords
