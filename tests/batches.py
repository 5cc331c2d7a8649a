"""Builds record batches as a producer would, for tests of what reads them."""

from __future__ import annotations

from aiokafka.record.default_records import DefaultRecordBatchBuilder


def batch_builder(compression: int, batch_size: int = 1 << 20) -> DefaultRecordBatchBuilder:
    """Return a builder of one batch, of no transaction and no idempotent producer.

    Args:
        compression: the codec's number in the batch's attributes; 0 for none.
        batch_size: the longest batch, in bytes before compression.
    """
    return DefaultRecordBatchBuilder(
        magic=2,
        compression_type=compression,
        is_transactional=0,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=batch_size,
    )
