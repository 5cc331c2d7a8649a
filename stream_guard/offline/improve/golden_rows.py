"""Adds rows to a policy's golden set: never a text twice, and never over a label that is there."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import orjson

from stream_guard.core.errors import SettingsError
from stream_guard.core.whole_files import write_whole
from stream_guard.offline.evaluation.golden import read_golden
from stream_guard.offline.evaluation.tables import Columns, open_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.offline.evaluation.golden import GoldenRow
    from stream_guard.offline.improve.rulings import Ruling
    from stream_guard.policies.policy import Policy

__all__ = ["Conflict", "NewRow", "Rows", "add_rows", "plan_rows"]

_HEADER: Final = ("id", "text", "label", "language")


class NewRow(NamedTuple):
    """A row to add; ``language`` is empty where it is unknown."""

    id: str
    text: str
    label: str
    language: str = ""


class Conflict(NamedTuple):
    """A row that is not added, because the golden set has the same text with another label, in a line from 1."""

    row: NewRow
    line: int
    label: str


@dataclass(slots=True, frozen=True)
class Rows:
    """What is to be added to a golden set.

    Attributes:
        new: rows to add.
        known: number of rows that are there.
        conflicts: rows that people label otherwise than the golden set.
        without_text: number of rulings whose post is gone.
    """

    new: tuple[NewRow, ...]
    known: int
    conflicts: tuple[Conflict, ...]
    without_text: int


def plan_rows(
    file: Path, policy: Policy, rulings: Sequence[Ruling], *, text_bytes_max: int
) -> Rows:
    """Return the rows that rulings add to a golden set, which may not exist yet.

    Args:
        file: the golden set.
        policy: whose categories label the rows.
        rulings: with texts; in their order.
        text_bytes_max: the largest text, in bytes of UTF-8.

    Raises:
        SettingsError: the golden set cannot be read, or rows cannot be added to its format.
    """
    if file.suffix.casefold() not in (".csv", ".tsv", ".jsonl"):
        message = (
            f"{file}: rows can be added to .csv, .tsv and .jsonl alone; convert the golden set"
        )
        raise SettingsError(message)
    there: dict[str, tuple[int, str, tuple[bool, str | None]]] = {}
    ids: set[str] = set()
    if file.exists():
        for old in read_golden(file, policy, Columns(), labels={}, text_bytes_max=text_bytes_max):
            there.setdefault(old.post.sha256, (old.number, old.label, _meaning(old)))
            ids.add(old.post.id)
    new: list[NewRow] = []
    conflicts: list[Conflict] = []
    known = without_text = 0
    for ruling in rulings:
        if not (ruling.text or "").strip():
            without_text += 1
            continue
        assert ruling.text is not None, "checked above"
        row = _row(ruling, ruling.text, policy)
        sha256 = hashlib.sha256(row.text.encode("utf-8", "replace")).hexdigest()
        meaning = (ruling.person.decision == "violates", _category(ruling, policy))
        if sha256 in there:
            line, label, other = there[sha256]
            if _agree(meaning, other):
                known += 1
            else:
                conflicts.append(Conflict(row, line, label))
            continue
        if row.id in ids:  # the id of another text
            row = row._replace(id=f"{row.id}:{sha256[:12]}")
        there[sha256] = (0, row.label, meaning)
        ids.add(row.id)
        new.append(row)
    return Rows(tuple(new), known, tuple(conflicts), without_text)


def _meaning(row: GoldenRow) -> tuple[bool, str | None]:
    return row.violates, row.category if row.violates else None


def _agree(one: tuple[bool, str | None], other: tuple[bool, str | None]) -> bool:
    """Return whether two labels agree: in the decision, and in the category where both name one."""
    return one[0] == other[0] and (None in (one[1], other[1]) or one[1] == other[1])


def _row(ruling: Ruling, text: str, policy: Policy) -> NewRow:
    label = _category(ruling, policy) or ruling.person.decision
    return NewRow(ruling.name, text, label, ruling.content.get("language") or "")


def _category(ruling: Ruling, policy: Policy) -> str | None:
    """Return the category of a violation, where the policy still has it and it violates."""
    code = ruling.person.category
    if ruling.person.decision != "violates" or code is None:
        return None
    category = policy.taxonomy.category(code)
    return code if category is not None and category.violates else None


def add_rows(file: Path, rows: Sequence[NewRow]) -> None:
    """Write rows behind those of a golden set, or make the file. It is replaced in one step.

    Args:
        file: ``.csv``, ``.tsv`` or ``.jsonl``; its columns, delimiter and line ends are kept.
        rows: as :func:`plan_rows` returned them.

    Raises:
        SettingsError: the file cannot be read or written.
    """
    target = Path(os.path.realpath(file))
    old = b""
    try:
        if target.exists():
            old = target.read_bytes()
        content = _lines_jsonl(file, rows) if _is_jsonl(file) else _lines_csv(file, old, rows)
        if old and not old.endswith(b"\n"):
            old += b"\r\n" if b"\r\n" in old else b"\n"
        mode = target.stat().st_mode & 0o777 if target.exists() else 0o644
        write_whole(target, old + content, mode)
    except OSError as error:
        message = f"{file}: cannot be written ({error.strerror}); make it and its folder writable for this user"
        raise SettingsError(message) from error


def _is_jsonl(file: Path) -> bool:
    return file.suffix.casefold() == ".jsonl"


def _lines_jsonl(file: Path, rows: Sequence[NewRow]) -> bytes:
    picked = open_table(file, Columns()).picked if file.exists() else {n: n for n in _HEADER}
    lines = []
    for row in rows:
        values = {picked.get(name, name): value for name, value in row._asdict().items() if value}
        lines.append(orjson.dumps(values) + b"\n")
    return b"".join(lines)


def _lines_csv(file: Path, old: bytes, rows: Sequence[NewRow]) -> bytes:
    names, picked, delimiter = list(_HEADER), {name: name for name in _HEADER}, ","
    if file.suffix.casefold() == ".tsv":
        delimiter = "\t"
    if old:
        table = open_table(file, Columns())
        names, picked, delimiter = list(table.names), table.picked, table.delimiter
    out = io.StringIO(newline="")
    ending = "\r\n" if b"\r\n" in old else "\n"
    writer = csv.writer(out, delimiter=delimiter, lineterminator=ending)
    if not old:
        writer.writerow(names)
    for row in rows:
        cells = {picked[what]: value for what, value in row._asdict().items() if what in picked}
        writer.writerow([cells.get(name, "") for name in names])
    return out.getvalue().encode("utf-8", "replace")
