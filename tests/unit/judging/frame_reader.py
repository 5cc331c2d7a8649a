"""Reads a user message back: the frame's lines, and the texts between them. It knows nothing of who wrote it."""

from __future__ import annotations

import re
from typing import NamedTuple

_LINE = re.compile(r"(.*?)(\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]|\Z)", re.DOTALL)
_ENTRY = re.compile(
    r"(?P<kind>Title of the thread|Earlier post|Post that it answers|Quoted in the post), by "
    r"(?P<who>the same author|an unknown author|author [1-9][0-9]*):"
)
_LANGUAGE = re.compile(r"Language: ([a-z]{2,3}(?:-[A-Z][a-z]{3})?(?:-(?:[A-Z]{2}|[0-9]{3}))?)")


class Message(NamedTuple):
    """What a user message says.

    Attributes:
        unit: ``post``, ``thread``, or ``bare`` for a message without a frame.
        context: kind, author and text of each entry, in the frame's words.
    """

    unit: str
    context: tuple[tuple[str, str, str], ...]
    language: str | None
    title: str | None
    text: str


def read_message(message: str) -> Message:
    """Return the only reading of a message.

    Raises:
        ValueError: it has none.
    """
    if not message.startswith("## "):
        return Message("bare", (), None, None, message)
    blocks = _blocks(message)
    context: list[tuple[str, str, str]] = []
    unit = "post"
    if blocks[0][0] in ("## Context, not to be judged", "## Thread to judge"):
        unit = "post" if "Context" in blocks.pop(0)[0] else "thread"
        while match := _ENTRY.fullmatch(blocks[0][0]):
            context.append((match["kind"], match["who"], _text(blocks.pop(0))))
        if not context:
            raise ValueError("a context without entries")
    _expect(blocks, "Last post:" if unit == "thread" else "## Post to judge")
    language = title = None
    if match := _LANGUAGE.fullmatch(blocks[1][0] if len(blocks) > 1 else ""):
        if blocks[0][1] is not None:
            raise ValueError("a text before the language")
        blocks.pop(0)
        language = match[1]
    if blocks[0][1] is None:
        blocks.pop(0)
        _expect(blocks, "Title:")
        title = _text(blocks.pop(0))
        _expect(blocks, "Text:")
    text = _text(blocks.pop(0))
    if blocks:
        raise ValueError(f"lines after the text: {blocks}")
    return Message(unit, tuple(context), language, title, text)


def _blocks(message: str) -> list[tuple[str, str | None]]:
    """Return each line of the frame with the text below it, or None."""
    blocks: list[tuple[str, list[str]]] = []
    for line, end in _LINE.findall(message):
        if line.startswith("> "):
            blocks[-1][1].append(line[2:] + end)
        elif line:
            if end not in ("\n", ""):
                raise ValueError(f"a line of the frame that ends with {end!r}: {line!r}")
            blocks.append((line, []))
        elif end:
            raise ValueError("an empty line of the frame")
    for _, parts in blocks[:-1]:
        if parts:
            # This line end belongs to the frame.
            if not parts[-1].endswith("\n"):
                raise ValueError("a line of the frame begins within a line")
            parts[-1] = parts[-1][:-1]
    return [(line, "".join(parts) if parts else None) for line, parts in blocks]


def _text(block: tuple[str, str | None]) -> str:
    if block[1] is None:
        raise ValueError(f"no text below {block[0]!r}")
    return block[1]


def _expect(blocks: list[tuple[str, str | None]], line: str) -> None:
    if not blocks or blocks[0][0] != line:
        raise ValueError(f"{line!r} was expected: {blocks[:1]}")
