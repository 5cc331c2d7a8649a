"""Cuts a source into blocks, whose digests name their output. Pure.

A block is the unit of work, of repetition and of output: it is judged by one actor and becomes one file.
"""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from stream_guard.core.errors import RecordError
    from stream_guard.core.kafka_types import Record

__all__ = ["Block", "Part", "Row", "Stretch", "cut"]


class Part(NamedTuple):
    """A part of a source that is cut into blocks: one file, or one partition of a topic.

    Attributes:
        name: the file's name within the source, or the topic.
        partition: of the topic; 0 for a file.
        identity: text that changes when the content does.
    """

    name: str
    partition: int
    identity: str


class Stretch(NamedTuple):
    """A stretch of a part.

    Attributes:
        begin, end: bytes of a text file, rows of a Parquet file, or offsets; ``end`` is excluded.
        first: number of its first row, from 1; of a topic, its first offset.
        rows: number of rows; of a topic, of offsets, some of which may hold no record.
    """

    begin: int
    end: int
    first: int
    rows: int


@dataclass(slots=True, frozen=True)
class Block:
    """A stretch of a part of the source.

    Attributes:
        index: place among all blocks, from 0.
        name, partition: of the part.
        begin, end, first, rows: of the stretch.
        digest: 32 hex digits of part, stretch and policies.
    """

    index: int
    name: str
    partition: int
    begin: int
    end: int
    first: int
    rows: int
    digest: str

    @property
    def file_name(self) -> str:
        """Name of the file that holds its output."""
        return f"{self.index:08d}-{self.digest[:16]}.parquet"


class Row(NamedTuple):
    """A row of a file or a record of a topic.

    Attributes:
        record: the source of its verdicts; its value holds the post.
        error: why it can hold no post, if that is known already.
    """

    record: Record
    error: RecordError | None = None


def cut(parts: Iterable[tuple[Part, Iterable[Stretch]]], policies_digest: str) -> Iterator[Block]:
    """Yield the blocks of all parts, in order.

    Args:
        parts: with their stretches.
        policies_digest: of the policies that judge.
    """
    index = itertools.count()
    for part, stretches in parts:
        for stretch in stretches:
            place = (part.name, part.partition, part.identity, stretch.begin, stretch.end)
            content = "\n".join(map(str, (*place, policies_digest)))
            digest = hashlib.sha256(content.encode()).hexdigest()[:32]
            yield Block(next(index), part.name, part.partition, *stretch, digest)
