"""The parts of Kafka that every room uses: a partition and a record. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self


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


class OversizedValue(bytes):
    """Stands for a value that was too long to keep: it is empty.

    Attributes:
        size_bytes: length of the whole record; None where reading ended before it.
        limit_bytes: of a whole record.
    """

    size_bytes: int | None
    limit_bytes: int

    def __new__(cls, size_bytes: int | None, limit_bytes: int) -> Self:
        """Make one."""
        value = super().__new__(cls)
        value.size_bytes = size_bytes
        value.limit_bytes = limit_bytes
        return value
