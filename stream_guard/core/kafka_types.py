"""The parts of Kafka that every room uses: a partition and a record. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence


class Partition(NamedTuple):
    """A partition of a topic; equal to aiokafka's ``TopicPartition``, with the same hash."""

    topic: str
    partition: int


class Record(Protocol):
    """The attributes of a Kafka record that Stream Guard reads; aiokafka's ``ConsumerRecord`` has them."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...
