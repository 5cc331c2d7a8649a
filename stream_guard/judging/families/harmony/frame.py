"""Writes the user message: the post to judge, and the thread around it. Pure.

Every line of foreign text begins with "> ", and no other line does. So no text can imitate a line of the frame, and
the frame can be read back without loss.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_guard.core.vocabulary import JudgeUnit
    from stream_guard.records.post import Post

__all__ = ["FRAME", "quote", "render_post"]

_CONTEXT: Final = "## Context, not to be judged"
_POST: Final = "## Post to judge"
_THREAD: Final = "## Thread to judge"
_SAME: Final = "the same author"
_OTHER: Final = "author {number}"
_UNKNOWN: Final = "an unknown author"
_KINDS: Final = {
    "title": "Title of the thread",
    "earlier": "Earlier post",
    "parent": "Post that it answers",
    "quoted": "Quoted in the post",
}
_LAST: Final = "Last post:"
_TITLE: Final = "Title:"
_TEXT: Final = "Text:"
FRAME: Final = "\0".join(
    (_CONTEXT, _POST, _THREAD, _LAST, _SAME, _OTHER, _UNKNOWN, *_KINDS.values(), _TITLE, _TEXT)
)
"""All words of the frame, for the template's digest."""
# Every character that any reader of text takes for the end of a line; those of str.splitlines.
_BREAK: Final = re.compile(r"\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")


def render_post(post: Post, unit: JudgeUnit = "post", *, native: bool = False) -> str:
    """Return the user message.

    Args:
        post: the post.
        unit: ``post``: the thread is context. ``thread``: all of it is judged.
        native: whether the policy is used alone, as its author tuned it. The message is then the bare text, if
            there is nothing else to say, and if the text does not begin like the frame.
    """
    if native and post.title is None and not post.context and not post.text.startswith("## "):
        return post.text
    lines: list[str] = []
    if post.context:
        lines.append(_CONTEXT if unit == "post" else _THREAD)
        lines.extend(_context(post))
    lines.append(_POST if unit == "post" or not post.context else _LAST)
    if post.language is not None:
        lines.append(f"Language: {post.language}")
    if post.title is not None:
        lines += [_TITLE, quote(post.title), _TEXT]
    lines.append(quote(post.text))
    return "\n".join(lines)


def quote(text: str) -> str:
    """Return a text with "> " before each of its lines."""
    return "> " + _BREAK.sub(lambda match: f"{match[0]}> ", text)


def _context(post: Post) -> Iterator[str]:
    numbers: dict[str, int] = {}
    for entry in post.context:
        if entry.author is None:
            who = _UNKNOWN
        elif entry.author == post.author:
            who = _SAME
        else:
            who = _OTHER.format(number=numbers.setdefault(entry.author, len(numbers) + 2))
        yield f"{_KINDS[entry.kind]}, by {who}:"
        yield quote(entry.text)
