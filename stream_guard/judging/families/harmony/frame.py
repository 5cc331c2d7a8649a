"""Writes the user message: the post to judge, and the thread around it. Pure.

Every line of foreign text begins with "> ", and no other line does. Other lines hold the frame's own words, numbers of
authors, and a language tag of a fixed form. So no text can imitate a line of the frame, and
the frame can be read back without loss.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from stream_guard.records.thread import SAME_AUTHOR, UNKNOWN_AUTHOR, speakers

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
_WHO: Final = {UNKNOWN_AUTHOR: _UNKNOWN, SAME_AUTHOR: _SAME}
_TAG: Final = re.compile(
    r"(?P<language>[A-Za-z]{2,3})(?:[-_](?P<script>[A-Za-z]{4}))?(?:[-_](?P<region>[A-Za-z]{2}|[0-9]{3}))?"
    r"(?:[-_][A-Za-z0-9]{1,8}){0,4}"
)
_SCRIPTS: Final = frozenset(("Arab", "Cyrl", "Deva", "Hans", "Hant", "Jpan", "Kore", "Latn"))
"""Scripts of languages that are written in several."""
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
    if post.language is not None and (language := _language(post.language)) is not None:
        lines.append(f"Language: {language}")
    if post.title is not None:
        lines += [_TITLE, quote(post.title), _TEXT]
    lines.append(quote(post.text))
    return "\n".join(lines)


def quote(text: str) -> str:
    """Return a text with "> " before each of its lines."""
    return "> " + _BREAK.sub(lambda match: f"{match[0]}> ", text)


def _context(post: Post) -> Iterator[str]:
    for entry, speaker in zip(post.context, speakers(post.context, post.author), strict=True):
        who = _WHO.get(speaker) or _OTHER.format(number=speaker)
        yield f"{_KINDS[entry.kind]}, by {who}:"
        yield quote(entry.text)


def _language(text: str) -> str | None:
    """Return a language tag in its canonical case (RFC 5646, section 2.1.1); None for anything else.

    Other subtags are left out: they can spell words, and this line of the frame holds no foreign text.
    """
    match = _TAG.fullmatch(text)
    if match is None:
        return None
    script = (match["script"] or "").title()
    parts = (match["language"].lower(), script if script in _SCRIPTS else "", match["region"] or "")
    return "-".join(part for part in (*parts[:2], parts[2].upper()) if part)
