"""The slice of Kafka that everyone speaks of: a partition and a record. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence


class Partition(NamedTuple):
    """A topic's partition; equal to, and hashing like, aiokafka's ``TopicPartition``."""

    topic: str
    partition: int


class Record(Protocol):
    """The slice of a Kafka record that is used; aiokafka's ``ConsumerRecord`` has it."""

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
