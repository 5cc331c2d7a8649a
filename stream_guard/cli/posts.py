"""Reads the posts that a command is given: a text, standard input, or a file."""

from __future__ import annotations

import csv
import hashlib
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from stream_guard.core.errors import PolicyError, RecordError, SettingsError, TooLargeError
from stream_guard.policies.lint.examples import find_examples
from stream_guard.policies.text import read_sections
from stream_guard.records.post import Post, PostParser

if TYPE_CHECKING:
    from stream_guard.policies.policy import Policy
    from stream_guard.settings import PostSettings

__all__ = ["PostLine", "read_bytes", "read_lines", "read_posts", "read_sample", "text_line"]

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


def read_sample(file: Path | None, policy: Policy, folder: Path, parser: PostParser) -> list[Post]:
    """Return posts to try a policy on: of a file, else of its golden set, else the examples in its text.

    Raises:
        SettingsError: the file cannot be read, or holds no post.
        PolicyError: no file is named, and the policy has neither a golden set nor examples.
    """
    if file is None and policy.golden_set is not None:
        file = folder / policy.id / policy.golden_set
    if file is None:
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
    found = _sample(file, content, parser)
    if not found:
        message = f"--posts {file}: holds no post"
        raise SettingsError(message)
    return found


def _sample(file: Path, content: str, parser: PostParser) -> list[Post]:
    if file.suffix == ".csv":
        return [
            _post(str(number), text) for number, text in enumerate(_csv_texts(file, content), 1)
        ]
    lines = [(n, line) for n, line in enumerate(content.splitlines(), 1) if line.strip()]
    if file.suffix == ".jsonl":
        return [_record(file, number, line, parser) for number, line in lines]
    return [_post(str(number), line) for number, line in lines]


def _csv_texts(file: Path, content: str) -> list[str]:
    # Published sets begin with a notice; the header is the first line with a column that we know.
    lines = content.splitlines(keepends=True)
    for start, line in enumerate(lines[:_HEADER_LINES_MAX]):
        names = [name.strip().casefold() for name in next(csv.reader([line]), [])]
        column = next((names.index(name) for name in _TEXT_COLUMNS if name in names), None)
        if column is not None:
            rows = csv.reader(io.StringIO("".join(lines[start + 1 :])))
            return [row[column] for row in rows if len(row) > column and row[column].strip()]
    message = f"--posts {file}: no text column; name one of its columns {', '.join(_TEXT_COLUMNS)}"
    raise SettingsError(message)


def _record(file: Path, number: int, line: str, parser: PostParser) -> Post:
    try:
        return parser.parse(line.encode(), [])
    except RecordError as error:
        message = f"--posts {file}:{number}: not a post: {error}"
        raise SettingsError(message) from error
