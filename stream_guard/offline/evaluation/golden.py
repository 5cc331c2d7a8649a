"""Reads golden sets: posts with human labels.

No row is dropped and no label is guessed: an error names the row and what to do.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from stream_guard.core.errors import RecordError, SettingsError
from stream_guard.offline.calibrate.data import label_decisions
from stream_guard.offline.evaluation.tables import Columns, open_table
from stream_guard.offline.evaluation.threads import read_around
from stream_guard.records.post import Post

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from stream_guard.core.vocabulary import Decision
    from stream_guard.policies.policy import Policy
    from stream_guard.records.post import PostParser

__all__ = ["Columns", "GoldenRow", "finish_rows", "read_golden"]

_SHOWN_CHARACTERS_MAX: Final = 40


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
    table = open_table(file, columns)
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


def finish_rows(rows: Sequence[GoldenRow], parser: PostParser, file: Path) -> None:
    """Resolve the markup of posts that were in no record, as the service does.

    Raises:
        SettingsError: a row would be a dead letter.
    """
    for row in rows:
        try:
            parser.finish(row.post)
        except RecordError as error:
            message = f"{file}:{row.number}: would be a dead letter: {error}; remove the row"
            raise SettingsError(message) from error
