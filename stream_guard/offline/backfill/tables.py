"""Reads the rows of tables, by column: of Parquet and of CSV files."""

from __future__ import annotations

import csv
import io
import urllib.parse
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from stream_guard.core.errors import DecodeError, EncodingError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stream_guard.core.errors import RecordError
    from stream_guard.offline.backfill.blocks import Block
    from stream_guard.offline.backfill.places import Place

__all__ = [
    "Cells",
    "csv_head",
    "csv_lines",
    "csv_rows",
    "file_lines",
    "folder_cells",
    "parquet_rows",
]

_CHUNK_BYTES: Final = 8 << 20
_CELL_CHARACTERS_MAX: Final = 16 << 20
_HIVE_NULL: Final = "__HIVE_DEFAULT_PARTITION__"


class _NotText(bytes):
    """The bytes of a text that is not UTF-8."""


class Cells(NamedTuple):
    """A row's cells by column, without empty ones, and why they hold no post."""

    named: dict[str, Any]
    error: RecordError | None = None


def folder_cells(name: str) -> dict[str, Any]:
    """Return the columns that the folders of a file stand for, as Hive and Spark write them: ``language=en/part.csv``.

    Such a column is in the folder's name alone, percent-encoded.
    """
    pairs = (part.partition("=") for part in name.split("/")[:-1])
    cells = {key: urllib.parse.unquote(value) for key, sign, value in pairs if key and sign}
    return {key: value for key, value in cells.items() if value != _HIVE_NULL}


def parquet_rows(place: Place, block: Block) -> Iterator[Cells | None]:
    """Yield a block's rows, in their order."""
    import pyarrow.parquet as pq

    with place.system.open_input_file(place.path) as file:
        reader = pq.ParquetFile(file)
        start, groups = 0, []
        for group in range(reader.metadata.num_row_groups):
            rows = reader.metadata.row_group(group).num_rows
            if start < block.end and start + rows > block.begin:
                groups.append((group, start))
            start += rows
        at = groups[0][1]
        # In batches: a row group of a large file may not fit into memory.
        for batch in reader.iter_batches(row_groups=[group for group, _ in groups]):
            low, high = max(block.begin - at, 0), min(block.end - at, batch.num_rows)
            at += batch.num_rows
            if low < high:
                yield from _batch_rows(batch.slice(low, high - low))
            if at >= block.end:
                return


def _batch_rows(batch: Any) -> Iterator[Cells]:  # noqa: ANN401 - pyarrow has no types
    """Yield the rows of a record batch. A row with a text that is not UTF-8, which Parquet permits, has an error."""
    try:
        rows = batch.to_pylist()
    except UnicodeDecodeError:
        rows = [_undecoded(batch, number) for number in range(batch.num_rows)]
    for row in rows:
        named = {name: value for name, value in row.items() if value is not None}
        wrong = any(isinstance(value, _NotText) for value in named.values())
        yield Cells(named, EncodingError("a cell is not UTF-8") if wrong else None)


def _undecoded(batch: Any, number: int) -> dict[str, Any]:  # noqa: ANN401
    """Return a row, with the bytes of each text that is not UTF-8."""
    row = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        cell = column[number]
        try:
            row[name] = cell.as_py()
        except UnicodeDecodeError:
            # A list or a struct has no bytes of its own.
            row[name] = _NotText(cell.as_buffer() if hasattr(cell, "as_buffer") else b"")
    return row


def csv_head(place: Place) -> tuple[int, list[str]]:
    """Return where the rows of a CSV file begin, in bytes, and the names of its columns."""
    for end, cells in csv_lines(place, 0):
        names = [name.encode("latin-1").decode("utf-8", "replace") for name in cells]
        return end, [name.removeprefix("\ufeff").strip() for name in names]
    return 0, []


def csv_lines(place: Place, begin: int) -> Iterator[tuple[int, list[str]]]:
    """Yield each row's end, in bytes, and its cells as latin-1, which stands for any bytes. Raises ValueError."""
    at = begin

    def lines() -> Iterator[str]:
        nonlocal at
        for line in file_lines(place, begin):
            at += len(line)
            yield line.decode("latin-1")

    csv.field_size_limit(_CELL_CHARACTERS_MAX)
    reader = csv.reader(lines())
    try:
        for cells in reader:
            yield at, cells
    except csv.Error as error:
        message = f"line {reader.line_num}: {error}; perhaps a quote is not closed"
        raise ValueError(message) from error


def csv_rows(place: Place, block: Block, columns: Sequence[str]) -> Iterator[Cells | None]:
    """Yield a block's rows; None for an empty line."""
    csv.field_size_limit(_CELL_CHARACTERS_MAX)
    content = place.read(block.begin, block.end).decode("latin-1")
    for raw in csv.reader(io.StringIO(content, newline="")):
        if not raw:
            yield None
            continue
        cells = [cell.encode("latin-1") for cell in raw]
        named: dict[str, Any] = dict(zip(columns, cells, strict=False))
        if len(cells) != len(columns):
            message = f"the row has {len(cells)} cells and the header {len(columns)}"
            yield Cells(named, DecodeError(message))
            continue
        try:
            texts = {name: cell.decode() for name, cell in named.items() if cell}
        except UnicodeDecodeError:
            yield Cells(named, EncodingError("a cell is not UTF-8"))
        else:
            yield Cells(texts)


def file_lines(place: Place, begin: int) -> Iterator[bytes]:
    """Yield the lines of a file from a byte on, with their ends."""
    with place.system.open_input_file(place.path) as file:
        size, at, rest = file.size(), begin, b""
        while at < size:
            chunk = bytes(file.read_at(min(_CHUNK_BYTES, size - at), at))
            at += len(chunk)
            lines = (rest + chunk).split(b"\n")
            rest = lines.pop()
            for line in lines:
                yield line + b"\n"
        if rest:
            yield rest
