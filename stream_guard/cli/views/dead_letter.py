"""Dead letters as lines for people. Pure.

What it must never do: let bytes of a record reach a terminal as they are, since they may steer it.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Final

from stream_guard.core.english import count_of
from stream_guard.core.errors import SettingsError
from stream_guard.core.times import time_text
from stream_guard.core.visible_bytes import visible_bytes
from stream_guard.core.visible_text import visible_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_guard.records.dead_letter import DeadLetter

COLUMNS: Final = ("record", "failed", "reason", "tries", "bytes", "state")
_SHOWN_BYTES_MAX: Final = 16 << 10
_HEADER_CHARACTERS_MAX: Final = 200


class Newest:
    """Keeps those that failed last, without their content.

    Args:
        count: how many; 0 for all.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._heap: list[tuple[int, int, DeadLetter]] = []
        self._seen = 0

    def add(self, letter: DeadLetter) -> None:
        """Keep it, and let the oldest go where there are too many."""
        self._seen += 1
        item = (letter.failed_ms, self._seen, letter.without_content())
        if self._count and len(self._heap) >= self._count:
            heapq.heappushpop(self._heap, item)
        else:
            heapq.heappush(self._heap, item)

    def letters(self) -> list[DeadLetter]:
        """Return them, the oldest first."""
        return [letter for _, _, letter in sorted(self._heap, key=lambda item: item[:2])]


def offset_range(text: str) -> tuple[int | None, int | None]:
    """Return the offsets in ``A-B``, ``A-``, ``-B`` or ``A``, both included.

    Raises:
        SettingsError: it is none of these.
    """
    first, dash, last = text.partition("-")
    numbers = [part for part in (first, last) if part]
    if not numbers or not all(part.isascii() and part.isdigit() for part in numbers):
        message = f"--offsets {text}: write A-B, A-, -B or A, both included; for example 1000-1999"
        raise SettingsError(message)
    low = int(first) if first else None
    high = (int(last) if last else None) if dash else low
    if low is not None and high is not None and high < low:
        message = f"--offsets {text}: the second is below the first"
        raise SettingsError(message)
    return low, high


def row(letter: DeadLetter, *, replayed: bool) -> tuple[str, ...]:
    """Return a dead letter's cells under :data:`COLUMNS`."""
    state = "replayed" if replayed else "cut" if letter.cut else ""
    return (
        visible_line(f"{letter.source_topic}/{letter.source_partition}/{letter.source_offset}"),
        time_text(letter.failed_ms),
        visible_line(letter.reason),
        visible_line(letter.about.get("sg_attempts", "")),
        "null" if letter.value_bytes is None else str(letter.value_bytes),
        state,
    )


def details(letter: DeadLetter, *, content: bool) -> Iterator[str]:
    """Yield a dead letter's lines: what is known of it, its record's headers, and with ``content`` key and value."""
    yield f"dead letter {letter.id} at {visible_line(letter.topic)}/{letter.partition}/{letter.offset}"
    source = f"{letter.source_topic}/{letter.source_partition}/{letter.source_offset}"
    yield f"  record       {visible_line(source)}, written {time_text(letter.source_ms)}"
    yield f"  failed       {time_text(letter.failed_ms)}"
    for name in ("reason", "error", "message", "stage", "policy", "group", "attempts"):
        text = letter.about.get(f"sg_{name}")
        if text is not None:
            yield f"  {name:<12} {visible_line(text)}"
    for name, text in letter.about.items():
        if name.startswith("sg_cut_"):
            yield f"  {name:<12} {visible_line(text)} (what is missing is in the source record)"
    yield f"  replayed     {count_of(letter.replays, 'time')} before"
    yield f"  headers      {len(letter.headers)}"
    for header, value in letter.headers:
        yield f"    {visible_line(header)}: {_header_text(value)}"
    for name, held in (("key", letter.key), ("value", letter.value)):
        size = "null" if held is None else count_of(len(held), "byte")
        hint = "" if content or not held else "; --content shows it"
        yield f"  {name:<12} {size}{hint}"
        if content and held:
            for line in content_lines(held):
                yield f"    {line}"


def _header_text(value: bytes | None) -> str:
    if value is None:
        return "null"
    try:
        text = visible_line(value.decode("utf-8"))
    except UnicodeDecodeError:
        text = "hex " + value.hex()
    if len(text) > _HEADER_CHARACTERS_MAX:
        return f"{text[:_HEADER_CHARACTERS_MAX]}… ({count_of(len(value), 'byte')})"
    return text


def content_lines(held: bytes) -> Iterator[str]:
    """Yield bytes as text where they are UTF-8, with control characters written out, or as a hex dump."""
    yield from visible_bytes(held, _SHOWN_BYTES_MAX)
    if len(held) > _SHOWN_BYTES_MAX:
        yield f"… and {count_of(len(held) - _SHOWN_BYTES_MAX, 'more byte')}; --json has all of them"
