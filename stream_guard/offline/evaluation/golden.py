"""Reads golden sets: posts with human labels, as CSV, TSV, JSON lines or Parquet.

Published sets may begin with a notice, vary the case of column names, and have cells of several lines. No row is
dropped and no label is guessed: an error names the row and what to do.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from stream_guard.core.english import count_of
from stream_guard.core.errors import SettingsError
from stream_guard.core.json_pointer import FirstOf
from stream_guard.offline.calibrate.data import label_decisions
from stream_guard.offline.evaluation.threads import THREAD_COLUMNS, read_around
from stream_guard.records.post import Post

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from stream_guard.core.vocabulary import Decision
    from stream_guard.policies.policy import Policy

__all__ = ["GOLDEN_BYTES_MAX", "Columns", "GoldenRow", "read_golden"]

GOLDEN_BYTES_MAX: Final = 1 << 30
"""The largest file, in bytes. The whole file is held in memory."""
_HEADER_LINES_MAX: Final = 5
"""The header is one of the first lines; lines before it are ignored."""
_TEXT: Final = ("text", "content", "post", "prompt", "message", "example")
_LABEL: Final = ("label", "classification", "category", "violates", "gold", "golden")
_ID: Final = ("id", "post_id", "content_id")
_LANGUAGE: Final = ("language", "lang", "locale", "language_code", "lang_code")
_SHOWN_CHARACTERS_MAX: Final = 40


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


class GoldenRow(NamedTuple):
    """One labelled post.

    Attributes:
        number: its first line, from 1; in Parquet its row.
        post: the post to judge.
        label: as in the file.
        violates: the meaning of the label under the policy.
        category: the label's category; None where the label gives only the decision.
        escalated: whether the label leaves the post to people.
    """

    number: int
    post: Post
    label: str
    violates: bool
    category: str | None
    escalated: bool = False


@dataclass(slots=True)
class _Table:
    """The raw rows of a file.

    Attributes:
        names: names of the columns.
        rows: number and values of each row.
        picked: the file's column for ``text``, ``label``, ``id``, ``language``, and those of a thread.
    """

    names: Sequence[str]
    rows: Iterable[tuple[int, Mapping[str, Any]]]
    picked: dict[str, str] = field(default_factory=dict)


def read_golden(
    file: Path,
    policy: Policy,
    columns: Columns,
    *,
    labels: Mapping[str, str],
    text_bytes_max: int,
) -> list[GoldenRow]:
    """Read a golden set.

    Args:
        file: ``.csv``, ``.tsv``, ``.jsonl`` or ``.parquet``.
        policy: defines the valid labels and categories.
        columns: names of the columns.
        labels: the meaning of labels that the policy does not have: ``{"bad": "violates"}``.
        text_bytes_max: the largest text, in bytes of UTF-8.

    Raises:
        SettingsError: the file cannot be read or is empty, a column is missing, or a row is invalid. The message
            names file and line.
    """
    table = _open(file, columns)
    known = label_decisions(policy)
    folded = {name.casefold(): meaning.casefold() for name, meaning in labels.items()}
    for name, meaning in folded.items():
        if meaning not in known:
            message = f"--map {name}={meaning}: unknown meaning {meaning!r}; use one of: {', '.join(sorted(known))}"
            raise SettingsError(message)
    rows: list[GoldenRow] = []
    seen: dict[str, int] = {}
    for number, values in table.rows:
        row = _row(file, number, values, table.picked, policy, known, folded)
        text_bytes = sum(
            len((part or "").encode("utf-8", "replace")) for part in (row.post.text, row.post.title)
        )
        if text_bytes > text_bytes_max:
            message = (
                f"{file}:{number}: the text has {text_bytes} bytes, over post.max_text_bytes "
                f"({text_bytes_max}), and the service would dead-letter it; remove the row, or raise the limit"
            )
            raise SettingsError(message)
        if row.post.id in seen:
            message = (
                f"{file}:{number}: duplicate id {row.post.id[:100]!r}, also in line {seen[row.post.id]}; "
                "give each row its own id"
            )
            raise SettingsError(message)
        seen[row.post.id] = number
        rows.append(row)
    if not rows:
        message = f"{file}: no rows; add at least one post with its label"
        raise SettingsError(message)
    return rows


def _row(
    file: Path,
    number: int,
    values: Mapping[str, Any],
    picked: Mapping[str, str],
    policy: Policy,
    known: Mapping[str, Decision],
    labels: Mapping[str, str],
) -> GoldenRow:
    text = values.get(picked["text"])
    if not isinstance(text, str) or not text.strip():
        what = "empty" if text is None or isinstance(text, str) else "not text"
        name = " or ".join(picked["text"].splitlines())
        message = f"{file}:{number}: the column {name!r} is {what}; fill it in, or remove the row"
        raise SettingsError(message)
    value = values.get(picked["label"])
    # pandas makes floats of integers if a cell is empty
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    label = str(value).strip() if value is not None else ""
    word = labels.get(label.casefold(), label.casefold())
    decision = known.get(word)
    if decision is None:
        shown = f"unknown label {label[:_SHOWN_CHARACTERS_MAX]!r}" if label else "empty label"
        message = (
            f"{file}:{number}: {shown} in column {picked['label']!r}; known: {', '.join(sorted(known))}; "
            "give its meaning with --map LABEL=MEANING"
        )
        raise SettingsError(message)
    category = next((c for c in policy.taxonomy.categories if c.code.casefold() == word), None)
    data = text.encode("utf-8", "replace")
    post_id, language = (
        values.get(picked[key]) if key in picked else None for key in ("id", "language")
    )
    around = read_around(values, picked, f"{file}:{number}")
    post = Post(
        id=str(post_id) if post_id not in (None, "") else str(number),
        text=text,
        sha256=hashlib.sha256(data).hexdigest(),
        text_bytes=len(data) + len((around.title or "").encode()) + around.thread.size_bytes,
        author=around.author,
        title=around.title,
        context=around.thread.entries,
        context_dropped=around.thread.dropped,
        language=str(language).strip() or None if language is not None else None,
    )
    return GoldenRow(
        number,
        post,
        label,
        decision == "violates",
        category.code if category else None,
        escalated=decision == "undetermined",
    )


def _open(file: Path, columns: Columns) -> _Table:
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


def _separated(file: Path, text: str, columns: Columns) -> _Table:
    """Return the table of a CSV. Spreadsheets of many countries write semicolons into it, and some programs tabs."""
    try:
        return _csv(file, text, columns, ",")
    except SettingsError as error:
        for delimiter in (";", "\t"):
            with contextlib.suppress(SettingsError):
                return _csv(file, text, columns, delimiter)
        raise error from None


def _csv(file: Path, text: str, columns: Columns, delimiter: str = "\t") -> _Table:
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
        return _Table(names, _csv_rows(file, records, names, picked), picked)
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


def _jsonl(file: Path, text: str, columns: Columns) -> _Table:
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
    return _Table(list(names), _resolved(rows, picked.values()), picked)


def _resolved(
    rows: Iterable[tuple[int, Mapping[str, Any]]], names: Iterable[str]
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        pointers = {name: FirstOf(name.splitlines()) for name in names if name.startswith("/")}
    except ValueError as error:
        raise SettingsError(str(error)) from error
    for number, value in rows:
        yield number, {**value, **{name: at.find(value) for name, at in pointers.items()}}


def _parquet(file: Path, columns: Columns) -> _Table:
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
    return _Table(names, enumerate(rows, 1), picked)
