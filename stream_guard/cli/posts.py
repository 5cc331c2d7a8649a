"""Reads the posts that a command is given: a text, standard input, or a file."""

from __future__ import annotations

import csv
import hashlib
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from stream_guard.core.english import did_you_mean
from stream_guard.core.errors import PolicyError, RecordError, SettingsError, TooLargeError
from stream_guard.core.json_pointer import pointer_to
from stream_guard.policies.lint.examples import find_examples
from stream_guard.policies.text import read_sections
from stream_guard.records.post import Post, PostParser

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.policies.policy import Policy
    from stream_guard.settings import PostSettings, Settings

__all__ = [
    "PostLine",
    "read_bytes",
    "read_lines",
    "read_posts",
    "read_sample",
    "settings_of_topic",
    "text_line",
]

_NAME_CHARACTERS_MAX: Final = 60
"""A longer text cannot be a mistyped file name, so no file is looked for."""
_TEXT_COLUMNS: Final = ("text", "content", "post", "prompt", "message", "example")
_HEADER_LINES_MAX: Final = 5


class PostLine(NamedTuple):
    """One post to judge, or the reason why the line holds none.

    Attributes:
        source: the file's name, ``-`` for standard input, or ``argument``.
        number: of the line, from 1.
        post: None where the line holds no post.
        fault: None where it holds one.
    """

    source: str
    number: int
    post: Post | None
    fault: RecordError | None = None


def settings_of_topic(settings: Settings, topic: str | None) -> PostSettings:
    """Return how posts of a topic are read; the common way if none is named. Raises SettingsError."""
    if topic is not None and topic not in settings.post.topics:
        known = ", ".join(settings.post.topics) or "none"
        meant = did_you_mean(topic, settings.post.topics)
        message = (
            f"--topic {topic}: no post.topics.{topic} in the settings{meant}; topics with their own: {known}; "
            "leave --topic out to read posts by the common settings"
        )
        raise SettingsError(message)
    return settings.post if topic is None else settings.post.of_topic(topic)


def read_bytes(file: Path) -> bytes:
    """Return a file's content. Raises SettingsError."""
    try:
        return file.read_bytes()
    except OSError as error:
        message = f"{file}: {error.strerror or error}; name a file that this user may read"
        raise SettingsError(message) from error


def read_lines(file: Path) -> list[tuple[int, bytes]]:
    """Return a file's lines with their numbers from 1, without empty ones. Raises SettingsError."""
    lines = enumerate(read_bytes(file).splitlines(), 1)
    return [(number, line) for number, line in lines if line.strip()]


def read_posts(what: str | None, settings: PostSettings) -> list[PostLine]:
    """Return the posts that the argument of ``classify`` names, in order.

    Raises:
        SettingsError: there is no text, the file cannot be read or holds no post, or it does not hold JSON lines.
    """
    if what is None and sys.stdin.isatty():
        raise SettingsError("give a text, a FILE.jsonl, or - and the posts on standard input")
    if what is None or what == "-":
        return _from_stdin(settings)
    if what.endswith(".jsonl"):
        lines = _json_lines(what, read_bytes(Path(what)), PostParser(settings))
        if not lines:
            message = f"{what}: holds no post; write one JSON object a line"
            raise SettingsError(message)
        return lines
    if not what.strip():
        raise SettingsError("the text is empty; give a text, a FILE.jsonl, or -")
    if len(what) <= _NAME_CHARACTERS_MAX and Path(what).is_file():
        message = f"{what} is a file but not .jsonl; to judge its content as one text: classify - < {what}"
        raise SettingsError(message)
    return [text_line("argument", what, settings)]


def _from_stdin(settings: PostSettings) -> list[PostLine]:
    content = sys.stdin.buffer.read()
    if not content.strip():
        raise SettingsError("-: standard input holds no post")
    if content.lstrip().startswith(b"{"):
        return _json_lines("-", content, PostParser(settings))
    return [text_line("-", content.decode("utf-8", "replace").strip(), settings)]


def _json_lines(source: str, content: bytes, parser: PostParser) -> list[PostLine]:
    lines = []
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        try:
            lines.append(PostLine(source, number, parser.parse(line, ())))
        except RecordError as error:
            lines.append(PostLine(source, number, None, error))
    return lines


def text_line(source: str, text: str, settings: PostSettings) -> PostLine:
    """Return a text as a post, or the reason why it would be a dead letter."""
    post = _post(source, text)
    try:
        PostParser(settings).finish(post)
    except RecordError as error:
        return PostLine(source, 1, None, error)
    if post.text_bytes > settings.max_text_bytes:
        message = f"the text has {post.text_bytes} bytes; post.max_text_bytes is {settings.max_text_bytes}"
        return PostLine(source, 1, None, TooLargeError(message))
    return PostLine(source, 1, post)


def _post(post_id: str, text: str) -> Post:
    data = text.encode("utf-8", "replace")
    return Post(post_id, text, hashlib.sha256(data).hexdigest(), len(data))


def read_sample(
    file: Path | None,
    policy: Policy,
    folder: Path,
    settings: PostSettings,
    text_column: str | None = None,
) -> list[Post]:
    """Return posts to try a policy on: of a file, else of its golden set, else the examples in its text.

    Args:
        file: ``.csv``, ``.jsonl``, or one text a line.
        policy: its golden set and its examples are used without a file.
        folder: of the policies.
        settings: where records have their fields.
        text_column: where the file has the text: a column's name or its number from 1, in JSON lines a name or a JSON
            pointer. None: one of the usual names, in JSON lines ``post.text``.

    Raises:
        SettingsError: the file cannot be read, holds no post, or has no such column.
        PolicyError: no file is named, and the policy has neither a golden set nor examples.
    """
    if file is None and policy.golden_set is not None:
        file = folder / policy.id / policy.golden_set
    if file is None:
        if text_column is not None:
            raise SettingsError(
                "--text-column names a column of a file; give the file with --posts"
            )
        examples = find_examples(read_sections(policy.text), policy.taxonomy)
        texts = list(dict.fromkeys(example.text for example in examples))
        if not texts:
            message = (
                f"policy {policy.id!r} has neither a golden set nor quoted examples with an answer; name posts with "
                "--posts FILE"
            )
            raise PolicyError(message)
        return [_post(str(number), text) for number, text in enumerate(texts, 1)]
    try:
        content = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        message = f"--posts {file}: {error}"
        raise SettingsError(message) from error
    found = _sample(file, content, settings, text_column)
    if not found:
        message = f"--posts {file}: holds no post"
        raise SettingsError(message)
    return found


def _sample(
    file: Path, content: str, settings: PostSettings, text_column: str | None
) -> list[Post]:
    if file.suffix == ".csv":
        texts = _csv_texts(file, content, text_column)
        return [_post(str(number), text) for number, text in enumerate(texts, 1)]
    lines = [(n, line) for n, line in enumerate(content.splitlines(), 1) if line.strip()]
    if file.suffix == ".jsonl":
        if text_column is not None:
            place = pointer_to(text_column)
            settings = settings.model_copy(update={"text": place})
        parser = PostParser(settings)
        return [_record(file, number, line, parser) for number, line in lines]
    if text_column is not None:
        message = f"--text-column {text_column}: {file} has no columns; name a .csv or .jsonl file"
        raise SettingsError(message)
    return [_post(str(number), line) for number, line in lines]


def _csv_texts(file: Path, content: str, text_column: str | None) -> list[str]:
    # Published sets begin with a notice; the header is the first line with a column that we know.
    lines = content.splitlines(keepends=True)
    heads = [next(csv.reader([line]), []) for line in lines[:_HEADER_LINES_MAX]]
    header = _fullest(heads)
    for start, head in enumerate(heads):
        column = _text_column(head, text_column, is_header=head is header)
        if column is not None:
            rows = csv.reader(io.StringIO("".join(lines[start + 1 :])))
            return [row[column] for row in rows if len(row) > column and row[column].strip()]
    if text_column is not None:
        there = ", ".join(
            name.strip() or f"(column {n})" for n, name in enumerate(_fullest(heads), 1)
        )
        message = f"--posts {file}: no column {text_column!r}; set --text-column to one of: {there}, or to its number"
        raise SettingsError(message)
    message = (
        f"--posts {file}: no text column; set --text-column to its name or number, or name one of its columns "
        f"{', '.join(_TEXT_COLUMNS)}"
    )
    raise SettingsError(message)


def _text_column(head: Sequence[str], wanted: str | None, *, is_header: bool) -> int | None:
    """Return the number from 0 of the text's column, if this line is the header."""
    names = [name.strip().casefold() for name in head]
    if wanted is None:
        return next((names.index(name) for name in _TEXT_COLUMNS if name in names), None)
    number = int(wanted) if wanted.isascii() and wanted.isdecimal() else None
    if number is not None and not is_header:
        return None  # a row may hold this number
    if wanted.strip().casefold() in names:
        return names.index(wanted.strip().casefold())
    return number - 1 if number is not None and 0 < number <= len(names) else None


def _fullest(heads: Sequence[Sequence[str]]) -> Sequence[str]:
    """Return the first line with the most cells: a notice fills one cell and a header several."""
    return max(heads, key=len, default=())


def _record(file: Path, number: int, line: str, parser: PostParser) -> Post:
    try:
        return parser.parse(line.encode(), [])
    except RecordError as error:
        message = f"--posts {file}:{number}: not a post: {error}"
        raise SettingsError(message) from error
