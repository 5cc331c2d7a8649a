"""Opens the tables of golden sets: CSV, TSV, JSON lines or Parquet.

Published sets may begin with a notice, vary the case of column names, and have cells of several lines.
"""

from __future__ import annotations

import contextlib
import csv
import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import orjson

from stream_guard.core.english import count_of
from stream_guard.core.errors import SettingsError
from stream_guard.core.json_pointer import FirstOf
from stream_guard.offline.evaluation.threads import THREAD_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = ["GOLDEN_BYTES_MAX", "Columns", "Table", "open_table"]

GOLDEN_BYTES_MAX: Final = 1 << 30
"""The largest file, in bytes. The whole file is held in memory."""
_HEADER_LINES_MAX: Final = 5
"""The header is one of the first lines; lines before it are ignored."""
_TEXT: Final = ("text", "content", "post", "prompt", "message", "example")
_LABEL: Final = ("label", "classification", "category", "violates", "gold", "golden")
_ID: Final = ("id", "post_id", "content_id")
_LANGUAGE: Final = ("language", "lang", "locale", "language_code", "lang_code")
_SHOWN_CHARACTERS_MAX: Final = 40
_CELL_CHARACTERS_MAX: Final = 1 << 17


@dataclass(slots=True, frozen=True)
class Columns:
    """The names of the columns; None for the usual names, in any case.

    In JSON lines, a name that begins with ``/`` is a JSON pointer, or several, one a line: the first that holds
    something. In a table, ``2`` is the second column, unless a column has that name.
    """

    text: str | None = None
    label: str | None = None
    id: str | None = None
    language: str | None = None


@dataclass(slots=True)
class Table:
    """The raw rows of a file.

    Attributes:
        names: names of the columns.
        rows: number and values of each row.
        picked: the file's column for ``text``, ``label``, ``id``, ``language``, and those of a thread.
        delimiter: between the cells of a line; empty where the file has no such lines.
    """

    names: Sequence[str]
    rows: Iterable[tuple[int, Mapping[str, Any]]]
    picked: dict[str, str] = field(default_factory=dict)
    delimiter: str = ""


def open_table(file: Path, columns: Columns) -> Table:
    """Open a file and pick its columns; its rows are read when they are asked for.

    Raises:
        SettingsError: the file cannot be read or is empty, or a column is missing.
    """
    try:
        size = file.stat().st_size
        if size > GOLDEN_BYTES_MAX:
            message = f"{file}: {size:,} bytes, over {GOLDEN_BYTES_MAX:,}; split it"
            raise SettingsError(message)
        suffix = file.suffix.casefold()
        if suffix == ".parquet":
            return _parquet(file, columns)
        content = file.read_bytes()
    except OSError as error:
        message = f"{file}: {error.strerror or error}; name a readable file"
        raise SettingsError(message) from error
    if suffix not in (".csv", ".tsv", ".jsonl"):
        message = f"{file}: must end in .csv, .tsv, .jsonl or .parquet"
        raise SettingsError(message)
    if not content.strip():
        message = f"{file}: empty; add a header and at least one post with its label"
        raise SettingsError(message)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        message = f"{file}:{line}: not UTF-8; save it as UTF-8"
        raise SettingsError(message) from error
    if suffix == ".jsonl":
        return _jsonl(file, text, columns)
    return (_csv if suffix == ".tsv" else _separated)(file, text, columns)


# Columns


def _pick(
    file: Path, names: Sequence[str], columns: Columns, *, ordered: bool = True
) -> dict[str, str]:
    """Return the file's column for each purpose; if columns are ``ordered``, a number names one by its position.

    Raises:
        SettingsError: a required or named column is missing.
    """
    picked: dict[str, str] = {}
    by_folded = {name.strip().casefold(): name for name in reversed(names)}
    wanted = (
        ("text", columns.text, _TEXT),
        ("label", columns.label, _LABEL),
        ("id", columns.id, _ID),
        ("language", columns.language, _LANGUAGE),
        *((name, None, (name,)) for name in THREAD_COLUMNS),
    )
    for what, named, usual in wanted:
        if named is not None and named.startswith("/"):
            picked[what] = named
            continue
        candidates = (named.strip().casefold(),) if named is not None else usual
        found = next((by_folded[name] for name in candidates if name in by_folded), None)
        if found is None and ordered and named is not None and named.strip().isdecimal():
            found = next(iter(names[int(named) - 1 : int(named)] if int(named) else ()), None)
        if found is not None:
            picked[what] = found
        elif named is not None or what in ("text", "label"):
            there = ", ".join(
                name.strip()[:_SHOWN_CHARACTERS_MAX] for name in names if name.strip()
            )
            missing = f"no column {named!r}" if named else f"no column named {', '.join(usual)}"
            position = f", or to its number (1 to {len(names)})" if ordered else ""
            message = (
                f"{file}: {missing}; set --{what}-column to one of: {there or 'none'}{position}"
            )
            raise SettingsError(message)
    return picked


def _separated(file: Path, text: str, columns: Columns) -> Table:
    """Return the table of a CSV. Spreadsheets of many countries write semicolons into it, and some programs tabs."""
    try:
        return _csv(file, text, columns, ",")
    except SettingsError as error:
        for delimiter in (";", "\t"):
            with contextlib.suppress(SettingsError):
                return _csv(file, text, columns, delimiter)
        raise error from None


def _csv(file: Path, text: str, columns: Columns, delimiter: str = "\t") -> Table:
    csv.field_size_limit(_CELL_CHARACTERS_MAX)  # of the whole process; other readers have their own
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    records = _records(file, reader)
    first: list[str] | None = None
    fault: SettingsError | None = None
    for _, record in zip(range(_HEADER_LINES_MAX), records, strict=False):
        names = _named(record[1])
        # A notice fills one cell and a header several: report the error of the fuller line.
        filled = [name for name in record[1] if name.strip()]
        if first is None or len(filled) > len(first):
            first, fault = filled, None
        try:
            picked = _pick(file, names, columns)
        except SettingsError as error:
            fault = fault or error
            continue
        return Table(names, _csv_rows(file, records, names, picked), picked, delimiter)
    assert fault is not None, "a file with content has a first line"
    raise fault


def _named(header: Sequence[str]) -> list[str]:
    """Return a header in which each column has a name of its own, so that its position can name it."""
    names: list[str] = []
    for number, name in enumerate(header, 1):
        # Of two columns with one name, the name means the first.
        names.append(name if name.strip() and name not in names else f"(column {number})")
    return names


def _records(file: Path, reader: Any) -> Iterator[tuple[int, list[str]]]:  # noqa: ANN401 - csv's reader has no name
    """Yield each record that is not blank, with its first line."""
    while True:
        number = reader.line_num + 1
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            message = f"{file}:{number}: not CSV ({error})"
            raise SettingsError(message) from error
        if any(cell.strip() for cell in record):
            yield number, record


def _csv_rows(
    file: Path,
    records: Iterator[tuple[int, list[str]]],
    names: list[str],
    picked: Mapping[str, str],
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    needed = max(names.index(picked[what]) for what in ("text", "label"))
    for number, record in records:
        if len(record) <= needed:
            message = (
                f"{file}:{number}: {count_of(len(record), 'cell')}, but the column {names[needed]!r} is number "
                f"{needed + 1}; quote cells that contain commas or line ends"
            )
            raise SettingsError(message)
        yield number, dict(reversed(list(zip(names, record, strict=False))))


def _jsonl(file: Path, text: str, columns: Columns) -> Table:
    rows: list[tuple[int, Mapping[str, Any]]] = []
    names: dict[str, None] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            message = f"{file}:{number}: not JSON ({error.msg})"
            raise SettingsError(message) from error
        if not isinstance(value, dict):
            message = f"{file}:{number}: must be a JSON object"
            raise SettingsError(message)
        names |= dict.fromkeys(value)
        rows.append((number, value))
    picked = _pick(file, list(names), columns, ordered=False)
    return Table(list(names), _resolved(rows, picked.values()), picked)


def _resolved(
    rows: Iterable[tuple[int, Mapping[str, Any]]], names: Iterable[str]
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        pointers = {name: FirstOf(name.splitlines()) for name in names if name.startswith("/")}
    except ValueError as error:
        raise SettingsError(str(error)) from error
    for number, value in rows:
        yield number, {**value, **{name: at.find(value) for name, at in pointers.items()}}


def _parquet(file: Path, columns: Columns) -> Table:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        message = f"{file}: Parquet needs pyarrow: pip install 'stream-guard[parquet]', or save it as .csv or .jsonl"
        raise SettingsError(message) from error
    try:
        content = pq.ParquetFile(file)
        names = list(content.schema_arrow.names)
        picked = _pick(file, names, columns)
        rows = content.read(columns=list(dict.fromkeys(picked.values()))).to_pylist()
    except pa.ArrowException as error:
        message = f"{file}: not Parquet ({type(error).__name__})"
        raise SettingsError(message) from error
    return Table(names, enumerate(rows, 1), picked)
