"""The partition of a key: Kafka's own for keys as they are, and one that is quickly made where a key is huge."""

from __future__ import annotations

import zlib

from aiokafka.partitioner import murmur2

from stream_guard.kafka.batches import _HASHED_BYTES_MAX, _hash


def test_a_key_has_the_partition_that_kafkas_default_partitioner_gives_it() -> None:
    for size in (0, 1, 21, 4_096):
        assert _hash(b"k" * size) == murmur2(b"k" * size) & 0x7FFFFFFF


def test_a_key_that_would_hold_the_event_loop_has_a_hash_made_in_c() -> None:
    key = b"k" * (_HASHED_BYTES_MAX + 1)
    assert _hash(key) == zlib.crc32(key) & 0x7FFFFFFF
