"""Reads a group's committed position, and waits while a transaction is still about to move it.

aiokafka 0.14 uses version 3 of OffsetFetch, which answers at once with the last committed position. Between the end of
a transaction and its marker in the offsets' log, that position is one transaction too old. A consumer that began there
would publish verdicts again. Version 7 (KIP-447, Kafka 2.5) has ``require_stable``: the broker answers
UNSTABLE_OFFSET_COMMIT until no transaction is pending.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import aiokafka.errors as kafka_errors
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.commit import OffsetFetchRequest_v3
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Int64,
    Schema,
    TaggedFields,
)

from stream_guard.kafka.protocol_errors import may_pass

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiokafka import AIOKafkaConsumer, TopicPartition

_UNSTABLE: Final = 88  # UNSTABLE_OFFSET_COMMIT, for which aiokafka has no name
_RETRY_S: Final = 0.05
_NONE: Final = -1


class _Response(Response):  # type: ignore[misc] # aiokafka ships no types
    API_KEY = 9
    API_VERSION = 7
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "topics",
            CompactArray(
                ("topic", CompactString("utf-8")),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("offset", Int64),
                        ("leader_epoch", Int32),
                        ("metadata", CompactString("utf-8")),
                        ("error_code", Int16),
                        ("tags", TaggedFields),
                    ),
                ),
                ("tags", TaggedFields),
            ),
        ),
        ("error_code", Int16),
        ("tags", TaggedFields),
    )


class _Stable(RequestStruct):  # type: ignore[misc]
    FLEXIBLE_VERSION = True
    API_KEY = 9
    API_VERSION = 7
    RESPONSE_TYPE = _Response
    SCHEMA = Schema(
        ("consumer_group", CompactString("utf-8")),
        (
            "topics",
            CompactArray(
                ("topic", CompactString("utf-8")),
                ("partitions", CompactArray(Int32)),
                ("tags", TaggedFields),
            ),
        ),
        ("require_stable", Boolean),
        ("tags", TaggedFields),
    )


class _OffsetFetch(Request[OffsetFetchRequest_v3 | _Stable]):  # type: ignore[misc]
    """Version 7 if the broker has it; otherwise version 3, which cannot wait."""

    API_KEY = 9

    def __init__(self, group: str, partitions: Iterable[TopicPartition], *, stable: bool) -> None:
        self._group = group
        self._stable = stable
        self._topics: dict[str, list[int]] = {}
        for partition in partitions:
            self._topics.setdefault(partition.topic, []).append(partition.partition)

    def build(self, request_struct_class: Any) -> Any:  # noqa: ANN401 - as aiokafka declares it
        if request_struct_class is _Stable:
            topics: list[Any] = [(topic, numbers, {}) for topic, numbers in self._topics.items()]
            return _Stable(self._group, topics, self._stable, {})
        return request_struct_class(self._group, list(self._topics.items()))


async def committed_positions(
    consumer: AIOKafkaConsumer,
    group: str,
    partitions: Iterable[TopicPartition],
    *,
    stable: bool = True,
) -> dict[TopicPartition, int]:
    """Return the committed positions of those partitions that have one; retried until it succeeds.

    The deadline is the caller's.

    Args:
        consumer: asks.
        group: whose positions.
        partitions: which.
        stable: whether to wait until no transaction is about to move any of them; it may never come to that for many
            partitions of a busy group. If not, a position may be one transaction too old.

    Raises:
        KafkaError: it is rejected permanently.
    """
    coordinator = consumer._coordinator  # noqa: SLF001 - aiokafka has no public way to send a request
    wanted = {(tp.topic, tp.partition): tp for tp in partitions}
    while True:
        await coordinator.ensure_coordinator_known()
        try:
            response = await coordinator._send_req(  # noqa: SLF001
                _OffsetFetch(group, wanted.values(), stable=stable)
            )
        except kafka_errors.KafkaError as error:
            if not may_pass(error):
                raise
        else:
            found = _read(response)
            code = next((code for _, code in found.values() if code), response.error_code)
            if not code:
                return {wanted[key]: at for key, (at, _) in found.items() if at != _NONE}
            if code != _UNSTABLE:
                refusal = kafka_errors.for_code(code)(group)
                if isinstance(refusal, kafka_errors.NotCoordinatorForGroupError):
                    coordinator.coordinator_dead()
                if not refusal.retriable:
                    raise refusal
        await asyncio.sleep(_RETRY_S)


def _read(response: Any) -> dict[tuple[str, int], tuple[int, int]]:  # noqa: ANN401
    """Return (position, error code) by topic and partition, of an answer of either version."""
    found = {}
    for topic, partitions, *_ in response.topics:
        for fields in partitions:
            if isinstance(response, _Response):
                partition, position, _epoch, _metadata, code, _tags = fields
            else:
                partition, position, _metadata, code = fields
            found[topic, partition] = (position, code)
    return found
