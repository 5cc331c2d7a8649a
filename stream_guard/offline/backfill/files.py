"""Reads posts from Parquet files, JSON lines and CSV files, in stretches that can be read alone."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

import orjson
import structlog

from stream_guard.core.errors import OperatorError, SettingsError
from stream_guard.core.json_pointer import JsonPointer
from stream_guard.offline.backfill.blocks import Part, Row, Stretch
from stream_guard.offline.backfill.tables import (
    Cells,
    csv_head,
    csv_lines,
    csv_rows,
    file_lines,
    folder_cells,
    parquet_rows,
)
from stream_guard.offline.session import SourceLine
from stream_guard.records.post import PostParser

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stream_guard.offline.backfill.blocks import Block
    from stream_guard.offline.backfill.places import Place
    from stream_guard.records.post import Post
    from stream_guard.settings import PostSettings, Settings

__all__ = ["FileReader", "FileSource", "find_files"]

KINDS: Final = {".parquet": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv"}
"""What a file holds, by the end of its name."""
_COMPRESSED: Final = (
    ".gz",
    ".gzip",
    ".bz2",
    ".xz",
    ".zst",
    ".zstd",
    ".lz4",
    ".snappy",
    ".br",
    ".zip",
)
_SHOWN_MAX: Final = 3
_BOM: Final = b"\xef\xbb\xbf"
_log = structlog.get_logger(__name__)


def find_files(source: Place, given: str) -> tuple[Place, list[str]]:
    """Return a folder and the names of the files in it that a source means: itself, or all files of the folder.

    Args:
        source: a file or a folder.
        given: as it was named, for messages.

    Raises:
        SettingsError: there is no such file, no file that can be read, or a compressed one with posts.
    """
    ends = ", ".join(KINDS)
    if source.is_file():
        _refuse_compressed([source.name], given)
        if _kind(source.name) is None:
            message = (
                f"{given}: the kind of this file is unknown; name a file that ends in one of {ends}"
            )
            raise SettingsError(message)
        return source.folder, [source.name]
    if not source.is_folder():
        message = f"{given}: there is no such file or folder; name one, or topic:NAME for a topic of Kafka"
        raise SettingsError(message)
    there = [
        name
        for name in source.files(deep=True)
        if not any(part.startswith((".", "_")) for part in name.split("/"))
    ]
    _refuse_compressed(there, given)
    names = [name for name in there if _kind(name) is not None]
    if not names:
        raise SettingsError(f"{given}: the folder has no file that ends in one of {ends}")
    if left := [name for name in there if _kind(name) is None]:
        _log.warning("files_left_out", source=given, files=len(left), first=left[:_SHOWN_MAX])
    return source, names


def _refuse_compressed(names: Sequence[str], given: str) -> None:
    """Refuse compressed files: a block of one could only be read from the file's start on."""
    found = [
        name
        for name in names
        if (place := PurePosixPath(name.lower())).suffix in _COMPRESSED and _kind(place.stem)
    ]
    if found:
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        message = (
            f"{given}: compressed files are not read: {found[0]}{more}; decompress them, or write their posts to "
            "Parquet, which is compressed within"
        )
        raise SettingsError(message)


def _kind(name: str) -> str | None:
    return next((kind for end, kind in KINDS.items() if name.lower().endswith(end)), None)


@dataclass(slots=True)
class FileSource:
    """Files with posts.

    Attributes:
        root: the folder.
        names: of the files, within it.
        post: where a row has its fields.
    """

    root: Place
    names: Sequence[str]
    post: PostSettings

    def __str__(self) -> str:
        return str(self.root / self.names[0]) if len(self.names) == 1 else str(self.root)

    def identity(self) -> str:
        """Return the folder, and a digest of names, sizes and times of the files."""
        files = [(name, (self.root / name).identity()) for name in self.names]
        return f"{self} ({hashlib.sha256(orjson.dumps(files)).hexdigest()[:12]})"

    async def parts(
        self, settings: Settings, block_rows: int
    ) -> list[tuple[Part, Sequence[Stretch]]]:
        """Return each file and its stretches of at most ``block_rows`` rows.

        Raises:
            OperatorError: no file holds a row.
            SettingsError: a file cannot be read, or lacks the column of the text.
        """
        del settings
        found: list[tuple[Part, Sequence[Stretch]]] = await asyncio.to_thread(
            lambda: list(self._parts(block_rows))
        )
        if not any(stretches for _, stretches in found):
            raise OperatorError(f"{self}: holds no row; name files with posts")
        return found

    def _parts(self, block_rows: int) -> Iterator[tuple[Part, Sequence[Stretch]]]:
        for name in self.names:
            place = self.root / name
            try:
                part = Part(name, 0, place.identity())
                stretches = list(self._stretches(name, place, block_rows))
            except (OSError, ValueError) as error:  # pyarrow's errors are of these two kinds
                message = f"{place}: cannot be read: {error}; repair the file, or move it away"
                raise SettingsError(message) from error
            yield part, stretches

    async def open(self, settings: Settings) -> FileReader:
        """Return a reader of blocks."""
        del settings
        return FileReader(self)

    def _stretches(self, name: str, place: Place, block_rows: int) -> Iterator[Stretch]:
        kind = _kind(name)
        if kind == "parquet":
            import pyarrow.parquet as pq

            with place.system.open_input_file(place.path) as file:
                reader = pq.ParquetFile(file)
                self._check_columns(place, reader.schema_arrow.names)
                total = reader.metadata.num_rows
            for begin in range(0, total, block_rows):
                end = min(begin + block_rows, total)
                yield Stretch(begin, end, begin + 1, end - begin)
        elif kind == "csv":
            begin, columns = csv_head(place)
            self._check_columns(place, columns)
            ends = (end for end, _ in csv_lines(place, begin))
            yield from _text_stretches(ends, begin, block_rows)
        else:
            yield from _text_stretches(_line_ends(place), 0, block_rows)

    def _check_columns(self, place: Place, columns: Sequence[str]) -> None:
        column = _top_column(self.post.text)
        if column is not None and column not in columns:
            known = ", ".join(columns)
            message = f"{place}: has no column {column!r} (post.text); set --text-column to one of: {known}"
            raise SettingsError(message)

    def read(self, block: Block) -> list[Row]:
        """Return the rows of a block. Raises SettingsError where the file cannot be read any more."""
        place = self.root / block.name
        try:
            kind = _kind(block.name)
            if kind == "parquet":
                return self._columns(block, parquet_rows(place, block))
            if kind == "csv":
                _, columns = csv_head(place)
                return self._columns(block, csv_rows(place, block, columns))
            return [
                Row(SourceLine(block.name, number, -1, value=line))
                for number, line in enumerate(
                    place.read(block.begin, block.end)
                    .removeprefix(_BOM)
                    .split(b"\n")[: block.rows],
                    block.first,
                )
                if line.strip()
            ]
        except (OSError, ValueError) as error:
            message = (
                f"{place}: cannot be read: {error}; give every node the same files, or repair it"
            )
            raise SettingsError(message) from error

    def _columns(self, block: Block, rows: Iterator[Cells | None]) -> list[Row]:
        """Return rows of columns as JSON documents. A row without an id gets its place as one."""
        column = _top_column(self.post.id)
        outside = folder_cells(block.name)
        found = []
        for number, row in enumerate(rows, block.first):
            if row is None:
                continue
            cells = outside | row.named
            if row.error is None and column is not None and column not in cells:
                cells[column] = f"{block.name}:{number}"
            value = orjson.dumps(cells, default=_plain)
            found.append(Row(SourceLine(block.name, number, -1, value=value), row.error))
        return found


class FileReader:
    """Reads blocks of files.

    Args:
        source: the files.
    """

    def __init__(self, source: FileSource) -> None:
        self._source = source
        self._parser = PostParser(source.post)

    async def read(self, block: Block) -> list[Row]:
        """Return the rows of a block. Raises SettingsError where the file cannot be read any more."""
        return await asyncio.to_thread(self._source.read, block)

    async def parse(self, row: Row) -> Post:
        """Return the post in a row. Raises RecordError."""
        return self._parser.parse(row.record.value, ())

    async def close(self) -> None:
        """Do nothing: files are open only while they are read."""


def _top_column(pointer: str | tuple[str, ...]) -> str | None:
    """Return the column that a setting's pointer names; None where it names no single one."""
    return JsonPointer(pointer).single if isinstance(pointer, str) else None


def _plain(value: object) -> str:
    """Return what JSON has no form for as text: bytes, times of pandas, decimals."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _text_stretches(ends: Iterator[int], begin: int, block_rows: int) -> Iterator[Stretch]:
    """Yield stretches of a text file whose rows end at these bytes."""
    first = 1
    while chunk := list(itertools.islice(ends, block_rows)):
        yield Stretch(begin, chunk[-1], first, len(chunk))
        begin, first = chunk[-1], first + len(chunk)


def _line_ends(place: Place) -> Iterator[int]:
    """Yield where each line ends, in bytes."""
    at = 0
    for line in file_lines(place, 0):
        at += len(line)
        yield at
